"""Jobs of a sweep whose endings a test chooses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from evidence.errors import Interrupted, RunFailed
from orchestration.sweeps.expansion import SweepRun
from orchestration.sweeps.launching import Command, Refused, Unreachable
from orchestration.sweeps.running import Signals, SweepRunner
from orchestration.sweeps.state import Ended, RunRecord, SweepState, read_state

AGAIN = "ser sweep s.yaml"
DONE = Ended("done")


class Killed(Exception):
    """The sweep's process ends here."""


class FakeJobs:
    """endings: how the jobs of each run end, in turn; None is a job that goes on. A job ends when it is looked at the
    second time. steps: the run's last step at each ending."""

    def __init__(self, endings: dict[str, list[Ended | None]] | None = None, steps: dict[str, list[int]] | None = None):
        self.endings, self.steps = endings or {}, steps or {}
        self.started: list[str] = []
        self.commands: dict[str, Command] = {}
        self.looks: dict[str, int] = {}
        self.over: set[str] = set()
        self.most_at_once = 0
        self.failing = 0  # calls that raise Unreachable
        self.refused: set[str] = set()  # runs
        self.killed_after: int | None = None  # starts
        self.answers_lost = 0  # of starts that succeed
        self.stops = False
        self.place = "here"

    def _answer(self) -> None:
        if self.failing:
            self.failing -= 1
            raise Unreachable("no answer")

    def start(self, job: str, command: Command) -> None:
        self._answer()
        if command.run_dir.name in self.refused:
            raise Refused("http://a: refused it")
        if job not in self.started:
            self.started.append(job)
        self.commands[job] = command
        if self.answers_lost:
            self.answers_lost -= 1
            raise Unreachable("the answer is lost")
        self.most_at_once = max(self.most_at_once, len(self.started) - len(self.over))
        if self.killed_after == len(self.started):
            raise Killed

    def knows(self, job: str, command: Command) -> bool:
        self._answer()
        return job in self.started

    def ended(self, job: str, command: Command) -> Ended | None:
        self._answer()
        self.looks[job] = self.looks.get(job, 0) + 1
        endings = self.endings.setdefault(command.run_dir.name, [])
        if self.looks[job] < 2 or (endings and endings[0] is None):
            return None
        self.over.add(job)
        for step in self.steps.get(command.run_dir.name, [])[:1]:
            command.run_dir.mkdir(parents=True, exist_ok=True)
            (command.run_dir / "metrics.jsonl").write_text(json.dumps({"step": step}) + "\n")
            self.steps[command.run_dir.name].pop(0)
        return endings.pop(0) if endings else DONE

    def where(self, job: str) -> str:
        return f"log of {job}"

    def leave(self, running: Sequence[tuple[RunRecord, Command]]) -> bool:
        self.looks |= {run.job: 2 for run, _ in running if run.job is not None and self.stops}
        return self.stops


def runs(count: int) -> list[SweepRun]:
    return [SweepRun(f"seed-{n}", "base", n, (f"seed={n}",)) for n in range(count)]


def begun(folder: Path, wanted: list[SweepRun], config: str = "/c.yaml", digest: str = "d") -> SweepState:
    return SweepState.begun(folder, Path(config), wanted, {run.name: digest for run in wanted})


def sweep(
    folder: Path, jobs: FakeJobs, count: int = 4, parallel: int = 2, retries: int = 1, seconds: Sequence[float] = ()
) -> tuple[SweepState, RunFailed | Interrupted | None]:
    clock = iter(seconds)
    folder.mkdir(exist_ok=True)
    state = begun(folder, runs(count))
    runner = SweepRunner(
        state, folder, jobs, Signals(), parallel, retries, look_s=0.0, clock_s=lambda: next(clock, 10**9)
    )
    return state, runner.run(AGAIN)


def statuses(folder: Path) -> dict[str, str]:
    state = read_state(folder)
    assert state is not None
    return {run.name: run.status for run in state.runs}
