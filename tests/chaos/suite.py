"""The chaos suite: `make chaos`. Real runs of `ser train` on the CPU whose real processes are killed, stopped and
starved. After each fault the audit of `ser ledger` must pass and staleness must be within its bound; after each end of
a run, nothing of it may be left.

    PYTHONPATH=.:tests python tests/chaos/suite.py [--only REGEX] [--except REGEX] [--seed N] [--out FILE]

Prints a line per fault, writes everything to a JSON file, and exits with code 1 if a fault was not survived.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from chaos_runs import Ran, run
from checks import Checked, check
from endpoint_moods import MOODS, moody_run
from faults import Fault
from matrix import INTERRUPTED, Start, matching, starts
from processes import still_there
from torn import tear

from rollout.dataset.shapes import make_shapes

CLIPS = 120  # new ones keep the decoder busy
MORE_STEPS = 3  # after the last fault, to the end of the run
# The exit code of a driver after a fault that ends it.
ENDS_WITH = {"TERM": 75, "KILL": -9}
GONE_S = 30.0  # Ray waits 5 s for a stopped process before it kills it
MOST_FAILURES = 12  # then something is wrong that is no chance


@dataclass
class Result:
    """What became of one fault. problem: why it was not survived, or empty."""

    fault: str
    problem: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.problem:
            return f"FAILED    {self.fault}: {self.problem}"
        told = ("recovery_s", "steps_back", "requeued", "regenerated")
        return f"survived  {self.fault}: " + ", ".join(f"{k} {self.facts[k]}" for k in told if k in self.facts)


class Suite:
    """results: of the faults so far. checks: of the runs."""

    def __init__(self, folder: Path, clips: int = CLIPS) -> None:
        self.folder = folder
        self.results: list[Result] = []
        self.checks: list[Checked] = []
        self.left: list[dict[str, Any]] = []
        self.data = folder / "shapes"
        make_shapes(self.data, train=clips, val=0, test=4, questions=1, workers=1)
        self._runs = 0

    @property
    def paths(self) -> list[str]:
        return [f"data.train={self.data / 'train.json'}", f"data.heldout={self.data / 'test.json'}"]

    def chain(self, planned: list[Start]) -> None:
        """One run, started and resumed for each of `planned`; after a failure, the others go on in a new run."""
        waiting, folder = deque(planned), self._new_folder()
        ended: list[Result] = []  # those whose recovery is that of the next start
        while waiting and sum(bool(result.problem) for result in self.results) < MOST_FAILURES:
            start = waiting.popleft()
            ran, rest = self._start(folder, start, ended)
            if rest is None:
                if start.torn:
                    ended.append(self._torn(folder, start.torn, ran))
                continue
            self._audit(folder, finished=False)
            folder, ended = self._new_folder(), []
            if rest:
                waiting.appendleft(replace(start, faults=rest))
        self._finish(folder, ended)

    def _start(self, folder: Path, start: Start, ended: list[Result]) -> tuple[Ran, tuple[Fault, ...] | None]:
        """Do the faults of a start. Returns the faults that were not reached, None if the run can be resumed."""
        done: list[tuple[float, Result]] = []

        def see(line: dict[str, Any]) -> None:
            if "phase" in line:
                fault = Fault(line["phase"], line["target"], line["signal"])
                done.append((line["time"], Result(str(fault), facts=dict(line))))
            elif "fault" in line:
                done[-1][1].facts |= line
                self._recovered(folder, done[-1][1])
            elif ended:
                self._resumed(ended, line)

        ran = run(folder, start.faults, (*self.paths, *start.settings), see)
        self._note_left(ran, start.faults[-1])
        last = start.faults[len(done) - 1] if done else None
        for result in ended:  # the resume has not ended a step
            self._add(replace(result, problem=f"not resumed: {ran.hung or ran.last_words}"))
        ended.clear()
        if len(done) == len(start.faults) and last is not None and not ran.hung:
            expected = ENDS_WITH[last.signal] if last.target == "driver" else 1
            if ran.code == expected:
                self._audit(folder, finished=False)
                ended.append(done[-1][1])
                return ran, None
        told = ran.hung or f"exit code {ran.code}: {ran.last_words}"
        if done and "recovery_s" not in done[-1][1].facts:
            self._add(replace(done[-1][1], problem=told))
        else:
            self._add(Result(f"between faults, before {start.faults[len(done)]}", problem=told))
        rest = start.faults[len(done) :]
        return ran, rest if done or len(start.faults) == 1 else rest[1:]

    def _recovered(self, folder: Path, result: Result) -> None:
        """The run goes on after a fault: what was killed, or stopped for good, is gone, and the audit passes."""
        if result.facts["signal"] in ("KILL", "STOP") and (still := still_there(result.facts["alive"], GONE_S)):
            result.problem = f"still there after {GONE_S:.0f} s: {still}"
        checked = check(folder / "run", finished=False)
        self.checks.append(checked)
        result.problem = result.problem or "; ".join(checked.problems)
        self._add(result)

    def _resumed(self, ended: list[Result], line: dict[str, Any]) -> None:
        """The first step after a resume has ended."""
        for result in ended:
            result.facts["recovery_s"] = round(line["time"] - result.facts["time"], 2)
            result.facts["steps_back"] = max(0, result.facts["step"] - line["step"] + 1)
            self._add(result)
        ended.clear()

    def _torn(self, folder: Path, how: str, ran: Ran) -> Result:
        """Damage the newest checkpoint of a run whose driver was killed."""
        facts = {"time": time.time(), "step": max((line.get("step", 0) for line in ran.lines), default=0)}
        result = Result(f"TORN checkpoint: {how}", facts=facts)
        result.problem = "" if tear(folder / "run", how) else "there was no checkpoint"
        return result

    def _finish(self, folder: Path, ended: list[Result]) -> None:
        """Let the run do its last steps; its audit is that of everything before."""
        if not folder.exists():
            return
        reached = max((line["step"] for line in _metrics(folder / "run")), default=0)

        def see(line: dict[str, Any]) -> None:
            if ended:
                self._resumed(ended, line)

        ran = run(folder, (), (*self.paths, f"steps={reached + MORE_STEPS}"), see)
        self._note_left(ran, None)
        for result in ended:
            self._add(replace(result, problem=f"not resumed: {ran.hung or ran.last_words}"))
        if ran.code != 0:
            self._add(Result("the end of the run", problem=ran.hung or f"exit code {ran.code}: {ran.last_words}"))
        self._audit(folder, finished=ran.code == 0)

    def moods(self, wanted: Any) -> None:
        """A run whose referee is an endpoint that answers late, wrongly or never for a while."""
        names = [name for name in MOODS if wanted(f"referee {name}")]
        if not names:
            return
        folder = self._new_folder()
        ran, outcomes = moody_run(folder, names, self.paths)
        for name, (problem, facts) in outcomes.items():
            self._add(Result(f"an endpoint as referee {name}", problem, facts))
        self._note_left(ran, INTERRUPTED)
        self._audit(folder, finished=ran.code == 0)

    def _audit(self, folder: Path, finished: bool) -> None:
        checked = check(folder / "run", finished)
        self.checks.append(checked)
        print(f"audit of {folder.name}: {'; '.join(checked.problems) or 'passed'}", flush=True)

    def _note_left(self, ran: Ran, last: Fault | None) -> None:
        note = {"after": str(last or "the end of the run"), "left": ran.left, "seconds": round(ran.left_s, 1)}
        self.left.append(note)
        if ran.left and not ran.hung:
            self.checks.append(Checked([f"after {note['after']}: {', '.join(ran.left)} left"]))
        print(f"          ended after {ran.seconds:.0f} s; left {note}", flush=True)

    def _add(self, result: Result) -> None:
        self.results.append(result)
        print(result, flush=True)

    def _new_folder(self) -> Path:
        self._runs += 1
        return self.folder / f"run-{self._runs}"


def _metrics(run_dir: Path) -> list[dict[str, Any]]:
    path = run_dir / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]


def recoveries(suite: Suite) -> Iterator[str]:
    """A line per kind of fault: how many recovered, and the median and range of their recovery times."""
    seconds: dict[str, list[float]] = {}
    for result in suite.results:
        if not result.problem and "recovery_s" in result.facts:
            seconds.setdefault(result.fault.partition(" while ")[0], []).append(result.facts["recovery_s"])
    for kind, values in seconds.items():
        spread = f"median {statistics.median(values):.0f} s, {min(values):.0f} to {max(values):.0f} s"
        yield f"recovery of {kind}: {len(values)}, {spread}"


def last_line(suite: Suite) -> tuple[str, bool]:
    """The last line of the output, and whether all is well."""
    survived = sum(not result.problem for result in suite.results)
    lost, doubled = (sum(len(getattr(checked, what)) for checked in suite.checks) for what in ("lost", "doubled"))
    recoveries = [r.facts["recovery_s"] for r in suite.results if not r.problem and "recovery_s" in r.facts]
    median = statistics.median(recoveries) if recoveries else float("nan")
    line = (
        f"faults survived {survived} of {len(suite.results)}, prompts lost {lost}, doubled {doubled}, "
        f"median recovery {median:.1f} s"
    )
    problems = any(checked.problems for checked in suite.checks)
    return line, survived == len(suite.results) > 0 and not problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="REGEX", help="only the faults whose name it matches")
    parser.add_argument("--except", default="", dest="leave_out", metavar="REGEX", help="not those that it matches")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the faults")
    parser.add_argument("--out", type=Path, default=Path("runs/chaos.json"), metavar="FILE", help="of the JSON")
    parser.add_argument("--list", action="store_true", help="print the plan and do nothing")
    args = parser.parse_args()
    wanted = matching(args.only, args.leave_out)
    planned = starts(args.seed, wanted)
    if args.list:
        print("\n".join(f"start {n}: {fault}" for n, start in enumerate(planned) for fault in start.faults))
        return 0
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        suite = Suite(Path(folder))
        try:
            if planned:
                suite.chain(planned)
            suite.moods(wanted)
        finally:
            everything = {name: [asdict(item) for item in getattr(suite, name)] for name in ("results", "checks")}
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(everything | {"left": suite.left}, indent=1), encoding="utf-8")
    print("\n".join(recoveries(suite)))
    line, well = last_line(suite)
    print(line)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
