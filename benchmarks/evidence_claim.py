"""Does training for evidence improve what V-STaR measures? The embedded policy's warm start against SER,
Open-o3-Video's reward and RLER's, three seeds each, on V-STaR's questions about the embedded world; and SER under the
second referee.

    python -m benchmarks.evidence_claim                       # trains and measures what is missing, prints the tables
    python -m benchmarks.evidence_claim --arms ser rler --seeds 0

Each arm is trained by `ser train` with its file in configs/experiment/, all else equal, and answers every question
greedily and with six draws, in its own form: RLER's with cited frames, the others' with claims. `single` is the greedy
answer; `majority` and, where frames are cited, `rler` elect one among the six. V-STaR's official rules, boxes converted
from the frames that the policy saw, answers compared exactly.

Intervals (95%) draw whole videos, with the answers of all seeds to their questions; the spread over seeds is not in
them, so the table has the mLGM of each seed. Differences are to the single answers of the warm start in the same form,
on the same videos. r_SER is that of the greedy claims as judged by the first referee, whoever was trained against.

Guarantees: runs are sequential; a finished part is not repeated, a training that was ended goes on from its last
checkpoint; a finished run with another configuration is refused.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.vstar_answers import (
    CITED,
    CLAIMS,
    GREEDY,
    KINDS,
    METRICS,
    TEST,
    Draw,
    Row,
    Texts,
    answers,
    report,
    rows_of,
)
from evaluation.election.candidates import Candidate
from evaluation.election.election import Method, elect
from evaluation.election.majority import Majority
from evaluation.election.rler import Rler
from evaluation.measures import Key, intervals, paired, values
from evaluation.vstar.measures import columns, measures
from evidence.errors import BadInput
from evidence.files import write_text
from evidence.plain import dumps
from orchestration.config import load_config
from orchestration.settings import TrainConfig
from rollout.dataset.shapes import MOMENTS

ROOT = Path(__file__).parents[1]
POLICY, REFEREE = ROOT / "assets/policy-vstar", ROOT / "assets/referee"
SAMPLES = TEST.with_name("test-rl.jsonl")  # by benchmarks/vstar_questions: what the referee is asked about the claims
JUDGED = KINDS[:3]  # the questions of chain 1, which SAMPLES ask, too
SEEDS = (0, 1, 2)
# RLER's temperatures, twice. All on the frames as they are: the policies were not trained on any others, and brighter
# ones halve their accuracy (docs/election.md).
DRAWS = [GREEDY, *(Draw(temperature) for temperature in 2 * (0.2, 0.7, 0.9))]
DRAWN = len(DRAWS) - 1
SINGLE = "single"
MODE = "official"


@dataclass(frozen=True)
class Arm:
    """form: in which it answers. config: how it is trained, in configs/experiment; None for the warm start itself."""

    form: str
    config: str | None = None
    overrides: tuple[str, ...] = ()


WARM = {CLAIMS: "warm start", CITED: "warm start, cited"}  # the arm to which others in this form are compared
ARMS = {
    WARM[CLAIMS]: Arm(CLAIMS),
    "ser": Arm(CLAIMS, "evidence_claim"),
    "open_o3": Arm(CLAIMS, "evidence_claim_open_o3"),
    "ser, second referee": Arm(CLAIMS, "evidence_claim", ("model.referee=assets/referee-small",)),
    WARM[CITED]: Arm(CITED),
    "rler": Arm(CITED, "evidence_claim_rler"),
}
# The same word counts as in the reward of configs/experiment/evidence_claim_rler.yaml.
METHODS: dict[str, Method] = {
    "majority": Majority(candidates=DRAWN),
    "rler": Rler(candidates=DRAWN, think_high=60),
}


@dataclass(frozen=True)
class Measured:
    """One model's results. reports: V-STaR's, by how the answer was chosen. used: the mean number of candidates that
    the election rests on. r_ser: None without claims."""

    reports: dict[str, dict[str, Any]]
    used: dict[str, float]
    r_ser: float | None


def trained(arm: Arm, run_dir: Path, overrides: Sequence[str]) -> Path:
    """The folder of the arm's model, which is trained unless it is there already. Raises BadInput."""
    if arm.config is None:
        return POLICY
    file = ROOT / f"configs/experiment/{arm.config}.yaml"
    wanted = [*arm.overrides, *overrides, f"run_dir={run_dir}"]
    if (run_dir / "summary.json").is_file():
        if load_config(TrainConfig, run_dir / "config.yaml") != load_config(TrainConfig, file, wanted):
            raise BadInput(
                f"{run_dir}: its config.yaml differs from the requested one; remove it or name another --out"
            )
    else:
        command = [sys.executable, "-m", "orchestration", "train", str(file), *wanted]
        again = ["resume=auto"] if run_dir.exists() else []
        subprocess.run([*command, *again], cwd=ROOT, stdout=sys.stderr, check=True)
    return run_dir / "model"


def elected(texts: Texts, method: Method) -> tuple[dict[str, str], float]:
    """The elected completion for each question, and the mean number of candidates used. A question to which no
    candidate has an answer keeps the first."""
    chosen, used = {}, []
    for name, (_, *drawn) in texts.items():
        election = elect([Candidate(text, frames=MOMENTS) for text in drawn], method)
        chosen[name] = drawn[election.winner or 0]
        used.append(election.used)
    return chosen, float(np.mean(used))


def measured(arm: Arm, model: Path, folder: Path, limit: int, seed: int) -> Measured:
    rows = rows_of(TEST, limit)
    texts = answers(model, TEST, limit, arm.form, DRAWS, seed, folder / "answers.json")
    greedy = {name: first for name, (first, *_) in texts.items()}
    reports, used = {SINGLE: report(rows, greedy)}, {SINGLE: 1.0}
    for name, method in METHODS.items():
        if arm.form == CITED or name != Rler.NAME:  # claims cite no frames by index
            chosen, used[name] = elected(texts, method)
            reports[name] = report(rows, chosen)
    return Measured(reports, used, judged(rows, greedy, folder) if arm.form == CLAIMS else None)


def judged(rows: Sequence[Row], texts: Mapping[str, str], folder: Path) -> float:
    """Mean r_SER by the first referee, of the answers to JUDGED."""
    completions, scored = folder / "completions.jsonl", folder / "scored.jsonl"
    lines = (
        {"id": f"{Path(row['vid']).name}-{n}-{kind}", "text": texts[f"{n}/{kind}"]}
        for n, row in enumerate(rows)
        for kind in JUDGED
    )
    wanted = "".join(dumps(line) + "\n" for line in lines)
    if not scored.is_file() or completions.read_text(encoding="utf-8") != wanted:
        scored.unlink(missing_ok=True)
        write_text(completions, wanted)
        options = {"reward": "ser", "referee": REFEREE, "config": ROOT / "configs/world/shapes.yaml"}
        options |= {"samples": SAMPLES, "completions": completions, "out": scored}
        command = [sys.executable, "-m", "orchestration", "score"]
        command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
        subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=True)
    scores = map(json.loads, scored.read_text(encoding="utf-8").splitlines())
    return float(np.mean([line["terms"]["ser"] for line in scores]))


def pooled(reports: Sequence[dict[str, Any]]) -> tuple[list[str], np.ndarray]:
    """Videos and columns of the samples of all seeds."""
    samples = [sample for numbers in reports for sample in numbers["samples"]]
    return [sample["video"] for sample in samples], columns(samples)


def tables(results: Mapping[str, Sequence[Measured]]) -> str:
    """The metrics of each arm, single and elected, and below them the differences to the warm start."""
    head = ["arm", "answer", *METRICS.values()]
    absolute = [[*head, "mLGM by seed", "candidates", "r_SER"]]
    relative = [head]
    metrics = measures(MODE)
    for name, runs in results.items():
        base = WARM[ARMS[name].form]
        for how in runs[0].reports:
            videos, table = pooled([run.reports[how] for run in runs])
            known, ranges = values(table, metrics), intervals(videos, table, metrics)
            seeds = " / ".join(f"{run.reports[how]['mlgm']:.3f}" for run in runs)
            used = f"{np.mean([run.used[how] for run in runs]):.1f}"
            scores = [f"{run.r_ser:.3f}" for run in runs if run.r_ser is not None and how == SINGLE]
            cells = [f"{known[key]:.3f} ({ranges[key][0]:.3f} to {ranges[key][1]:.3f})" for key in METRICS]
            absolute.append([name, how, *cells, seeds, used, " / ".join(scores) or "-"])
            if base in results and (name, how) != (base, SINGLE):
                _, first = pooled([results[base][0].reports[SINGLE]] * len(runs))
                relative.append([name, how, *_differences(paired(videos, first, table, metrics))])
    return "\n\n".join(map(markdown, (absolute, relative)))


def _differences(pairs: Mapping[Key, tuple[float, float, float]]) -> list[str]:
    return ["{:+.3f} ({:+.3f} to {:+.3f})".format(*pairs[key]) for key in METRICS]


def markdown(table: Sequence[Sequence[str]]) -> str:
    lines = [table[0], ["---"] * len(table[0]), *table[1:]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="for every training, as in `ser train`")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM", help=", ".join(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, metavar="N")
    parser.add_argument("--limit", type=int, default=256, help="rows of the test annotation (%(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "runs/evidence-claim", help="folder of it all (%(default)s)")
    args = parser.parse_args()
    results: dict[str, list[Measured]] = {name: [] for name in args.arms}
    for seed in args.seeds:  # all arms of one seed first, so that an interrupted benchmark still compares them
        for name in args.arms:
            arm, folder = ARMS[name], args.out.absolute() / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
            if arm.config is None and results[name]:
                continue  # there is one warm start
            model = trained(arm, folder / "train", [*args.overrides, f"seed={seed}"])
            results[name].append(measured(arm, model, folder, args.limit, seed))
    print(tables(results))


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        print(f"evidence_claim: {error}", file=sys.stderr)
        sys.exit(2)
    except subprocess.CalledProcessError as error:
        sys.exit(f"evidence_claim: exit code {error.returncode} from {' '.join(map(str, error.cmd))}")
