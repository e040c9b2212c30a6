"""The planner's throughput against runs of the embedded world.

    python -m benchmarks.planner            # about 25 minutes on two cores with nothing else on them

trains seven short runs: two from which the CPU seconds of each stage are taken, and five others, which differ in S, P,
engines, lengths and the cost of the referee, in turns with them. The simulation (orchestration/planning/simulation)
predicts the completions per second of the five from those rates alone, with the cores shared; all other numbers are the
constants below. Beside its error is that of the bottleneck alone: the stage that would take longest if it had a core
for each of its processes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from scipy.optimize import nnls

from evidence.lines import records
from orchestration.config import load_config
from orchestration.planning.simulation import Parts, Seconds, simulate
from orchestration.planning.workload import Workload, lognormal
from orchestration.settings import TrainConfig
from referee.reward.graph import RewardGraph

ROOT = Path(__file__).parents[1]
QUICKSTART = ROOT / "configs/experiment/quickstart.yaml"
# Frozen. A run of `synchronous` between its references was seen while these were chosen; the other four were not.
LENGTH_SIGMA = 0.3  # of the logarithm of a completion's length
REFEREE_PROCESSES = 2  # the actor, which draws and encodes images, and its engine: each takes half of the CPU seconds
LOAD_S = 0.1  # CPU seconds of an engine that loads weights
PROMPT = 82  # tokens of a prompt of the embedded world
FIRST = 4  # the step after which times are taken: the slots are full by then
POLL_S = 0.1
# The process, by the title that Ray gives it, whose descendants do the work of a stage.
STAGES = {"ray::LearnerRank": "learner", "ray::RolloutActor": "rollout", "ray::RefereeActor": "referee"}

REFERENCES = {
    "few groups": ["pacing.groups_per_step=4"],
    "many short groups": ["pacing.groups_per_step=12", "sampling.max_tokens=32"],
}
PREDICTED = {
    "synchronous": ["pacing.staleness=0"],
    "staleness 3, larger steps": ["pacing.staleness=3", "pacing.groups_per_step=10"],
    "two engines": ["cluster.rollout_engines=2"],
    "shorter completions": ["sampling.max_tokens=48"],
    "no referee": ["reward=accuracy_only"],
}


@dataclass(frozen=True)
class Measured:
    """What a run did in its counted steps. cpu: CPU seconds by stage; `other` is the driver, Ray and decoders. tokens:
    drawn. questions: asked of the referee."""

    steps: int
    wall_s: float
    cpu: dict[str, float]
    groups: int
    completions: int
    tokens: float
    questions: float

    @property
    def throughput(self) -> float:
        return self.completions / self.wall_s


def cpu_seconds(root: psutil.Process) -> Counter[str]:
    """CPU seconds so far of `root` and its descendants by stage."""
    seconds: Counter[str] = Counter()
    pending = [(root, "other")]
    while pending:
        process, stage = pending.pop()
        try:
            title = " ".join(process.cmdline())
            stage = next((name for prefix, name in STAGES.items() if title.startswith(prefix)), stage)
            times = process.cpu_times()
            seconds[stage] += times.user + times.system
            pending += [(child, stage) for child in process.children()]
        except psutil.NoSuchProcess:
            continue
    return seconds


def run(overrides: list[str], steps: int, run_dir: Path) -> Measured:
    """Train and measure the steps from FIRST to `steps`; one more is trained, whose end is not that of a step alone."""
    shutil.rmtree(run_dir, ignore_errors=True)
    command = [
        *(sys.executable, "-m", "orchestration", "train", str(QUICKSTART), *overrides),
        *(f"steps={steps + 1}", "eval.samples=0", "wandb=disabled", f"run_dir={run_dir}"),
    ]
    child = subprocess.Popen(command, cwd=ROOT, stdout=sys.stderr)
    root = psutil.Process(child.pid)
    began = cpu_seconds_at(root, child, run_dir, FIRST)
    ended = cpu_seconds_at(root, child, run_dir, steps)
    if child.wait():
        raise ChildProcessError(f"exit code {child.returncode} from {' '.join(command)}")
    lines = list(records(run_dir / "metrics.jsonl"))
    counted, config = lines[FIRST:steps], load_config(TrainConfig, QUICKSTART, overrides)
    groups = config.pacing.groups_per_step * len(counted)
    completions = groups * config.sampling.group_size
    return Measured(
        steps=len(counted),
        wall_s=lines[steps - 1]["seconds"] - lines[FIRST - 1]["seconds"],
        cpu={stage: ended[stage] - began[stage] for stage in ("learner", "rollout", "referee", "other")},
        groups=groups,
        completions=completions,
        tokens=completions * statistics.fmean(line["rollout/tokens"] for line in counted),
        questions=lines[steps - 1].get("referee/asked", 0) - lines[FIRST - 1].get("referee/asked", 0),
    )


def cpu_seconds_at(root: psutil.Process, child: subprocess.Popen[Any], run_dir: Path, step: int) -> Counter[str]:
    """CPU seconds when the run has reported `step`. Raises ChildProcessError if it ends before."""
    file = run_dir / "metrics.jsonl"
    while not file.is_file() or file.read_bytes().count(b"\n") < step:
        if child.poll() is not None:
            raise ChildProcessError(f"exit code {child.returncode} before step {step} of {run_dir}")
        time.sleep(POLL_S)
    return cpu_seconds(root)


@dataclass(frozen=True)
class Rates:
    """CPU seconds, of all processes of a stage together: of an optimizer step and of a trained token; of a group's
    prompt and of a drawn token; of a question; and of a group in all other processes. length: mean of completions that
    are not cut short. questions: of a drawn token."""

    step: float
    trained: float
    prompt: float
    drawn: float
    question: float
    other: float
    length: float
    questions: float

    @classmethod
    def of(cls, references: list[Measured]) -> Rates:
        def fitted(stage: str, fixed: list[float], varying: list[float]) -> list[float]:
            weights, _ = nnls(np.column_stack([fixed, varying]), [run.cpu[stage] for run in references])
            return weights.tolist()

        def ratio(numerators: list[float], denominators: list[float]) -> float:
            return sum(numerators) / sum(denominators)

        tokens, groups = [run.tokens for run in references], [run.groups for run in references]
        trained = [PROMPT * run.groups + run.tokens for run in references]
        step, of_trained = fitted("learner", [float(run.steps) for run in references], trained)
        prompt, drawn = fitted("rollout", [float(n) for n in groups], tokens)
        return cls(
            step=step,
            trained=of_trained,
            prompt=prompt,
            drawn=drawn,
            question=ratio([run.cpu["referee"] for run in references], [run.questions for run in references]),
            other=ratio([run.cpu["other"] for run in references], [float(n) for n in groups]),
            length=max(run.tokens / run.completions for run in references),
            questions=ratio([run.questions for run in references], tokens),
        )


def predicted(config: TrainConfig, rates: Rates, cores: float) -> tuple[float, float]:
    """Completions per second of a config: by the simulation, and by its bottleneck alone."""
    sampling, pacing, cluster = config.sampling, config.pacing, config.cluster
    lengths = lognormal(rates.length, LENGTH_SIGMA, sampling.max_tokens)
    mean = min(rates.length, float(sampling.max_tokens))
    workload = Workload(PROMPT, 8, 4, sampling.group_size, lengths, mean, sampling.max_tokens)
    asks = "verdicts" in RewardGraph(config.reward).needs
    drawn, ranks = sampling.group_size * mean, config.learner.ranks
    seconds = Seconds(
        frames=rates.other,
        prefill=rates.prompt,
        decode=0.0,  # a token takes the same CPU seconds in any company, so that those of the references are kept
        decode_sequence=rates.drawn,
        referee=rates.question * rates.questions * drawn if asks else 0.0,
        step=rates.step / ranks,
        token=rates.trained / ranks,
        publish=0.0,  # part of a step's CPU seconds
        load=LOAD_S,
    )
    parts = Parts(ranks, cluster.rollout_engines, REFEREE_PROCESSES, sampling.max_num_seqs, decoders=1, cores=cores)
    outcome = simulate(pacing, parts, seconds, workload, config.learner.packing)
    groups = pacing.groups_per_step
    slowest = max(
        groups * (rates.prompt + rates.drawn * drawn) / cluster.rollout_engines,
        groups * seconds.referee / REFEREE_PROCESSES,
        seconds.step + seconds.token * groups * (PROMPT + drawn),
    )
    completions = groups * sampling.group_size
    return completions / outcome.step_s, completions / slowest


def main() -> None:
    parser = argparse.ArgumentParser(description="The planner's throughput against runs of the embedded world.")
    parser.add_argument("--steps", type=int, default=24, help=f"of each run, above {FIRST} (default %(default)s)")
    parser.add_argument("--only", nargs="+", choices=PREDICTED, default=list(PREDICTED), help="runs to predict")
    parser.add_argument("--out", type=Path, default=ROOT / "runs/planner", help="(default %(default)s)")
    args = parser.parse_args()
    first, last = REFERENCES
    measured: dict[str, Measured] = {}
    for name in (first, *args.only, last):  # the references at both ends, so that a drift of the machine shows in both
        overrides = (REFERENCES | PREDICTED)[name]
        measured[name] = run(overrides, args.steps, args.out.absolute() / name.replace(" ", "_"))
    rates, cores = Rates.of([measured[name] for name in REFERENCES]), float(len(os.sched_getaffinity(0)))
    runs = {}
    for name in args.only:
        simulated, bottleneck = predicted(load_config(TrainConfig, QUICKSTART, PREDICTED[name]), rates, cores)
        actual = measured[name].throughput
        runs[name] = {
            "completions_per_s": round(actual, 2),
            "simulated": round(simulated, 2),
            "error": round(simulated / actual - 1, 3),
            "bottleneck_alone": round(bottleneck, 2),
            "bottleneck_error": round(bottleneck / actual - 1, 3),
        }
    print(json.dumps({"cores": cores, "rates": vars(rates), "cpu": {n: m.cpu for n, m in measured.items()}, **runs}))


if __name__ == "__main__":
    main()
