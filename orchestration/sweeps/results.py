"""The results of a sweep's runs side by side: per run, per arm over its seeds, and arms against the first one. Pure.

Two kinds of intervals, both 95%, answer two questions. Over seeds, Student's t of one value per seed: would training
again give the same? Over clips, the paired bootstrap of `ser train` on the means over the common seeds: would other
held-out clips give the same, for these very models? Only runs that have finished are averaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from evaluation.comparison import Evaluation, as_evaluation, common_clips, paired_bootstrap_ci
from orchestration.reporting.heldout_records import DRAWS
from orchestration.run_report.facts import MEASURES
from orchestration.run_report.recorded import Run
from orchestration.run_report.stages import number
from orchestration.sweeps.state import RunRecord

LEVEL = 0.95
LAST_SHARE = 0.1  # of a run's steps, over which its last reward is averaged
TRAIN_REWARD = "train/reward"
OF_SUMMARY = ("trained_groups", "staleness_mean", "staleness_max", "wall_s")
# Metrics with an interval over clips, and their values in an Evaluation.
OF_CLIPS = {f"{DRAWS[0]}/{name}_after": name for name in ("reward", "accuracy", "iou")}
NOT_METRICS = ("step", "version", "set", "n", "seconds")


@dataclass(frozen=True)
class Result:
    """One run. metrics: by name; a value that is not known is absent. heldout: its clips after training, greedily."""

    run: str
    arm: str
    seed: int | None
    status: str
    step: int
    metrics: dict[str, float]
    reason: str = ""
    heldout: Evaluation | None = field(default=None, repr=False)

    @property
    def finished(self) -> bool:
        return self.status == "done"


@dataclass(frozen=True)
class Mean:
    """A metric of an arm over n seeds. low, high: None for fewer than two."""

    arm: str
    metric: str
    n: int
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference:
    """A metric of an arm minus that of the baseline, on the n seeds that both have. low, high: over seeds, None for
    fewer than two. clips_low, clips_high: over held-out clips, for the measures that have one value per clip."""

    arm: str
    baseline: str
    metric: str
    n: int
    difference: float
    low: float | None
    high: float | None
    clips_low: float | None = None
    clips_high: float | None = None


def result(record: RunRecord, run: Run | None) -> Result:
    """`run`: None if its folder holds nothing yet."""
    if run is None:
        return Result(record.name, record.arm, record.seed, record.status, 0, {}, record.reason)
    heldout = None
    if run.summary and (records := run.heldout.get((run.last_step, DRAWS[0]))):
        try:
            heldout = as_evaluation(records)
        except ValueError:  # a clip without a verdict
            heldout = None
    step, metrics = run.last_step, metrics_of(run)
    return Result(record.name, record.arm, record.seed, record.status, step, metrics, record.reason, heldout)


def metrics_of(run: Run) -> dict[str, float]:
    """All numbers that a run's files hold about its results."""
    known: dict[str, float | None] = {TRAIN_REWARD: last_reward(run)}
    for draw, part in ((DRAWS[0], run.summary), (DRAWS[1], run.summary.get("sampled"))):
        for key, _ in MEASURES:
            for when in ("before", "after"):
                value = part.get(f"{key}_{when}") if isinstance(part, Mapping) else None
                known[f"{draw}/{key}_{when}"] = number(value)
    known |= {key: number(run.summary.get(key)) for key in OF_SUMMARY}
    for line in run.evaluations:  # a later line of a set wins
        known |= {f"eval/{line['set']}/{key}": number(value) for key, value in line.items() if key not in NOT_METRICS}
    return {key: value for key, value in known.items() if value is not None}


def last_reward(run: Run) -> float | None:
    """The mean training reward of the last tenth of the steps."""
    last = run.steps[-max(1, round(len(run.steps) * LAST_SHARE)) :]
    rewards = [value for line in last if (value := number(line.get("reward"))) is not None]
    return float(np.mean(rewards)) if rewards else None


def means(results: Sequence[Result]) -> list[Mean]:
    """Each metric of each arm over its finished runs, in the order of the runs."""
    found = []
    for arm, runs in _arms(results).items():
        for metric in dict.fromkeys(metric for run in runs for metric in run.metrics):
            values = np.array([run.metrics[metric] for run in runs if metric in run.metrics])
            found.append(Mean(arm, metric, len(values), float(values.mean()), *interval(values)))
    return found


def differences(results: Sequence[Result]) -> list[Difference]:
    """Each metric of each further arm against the first arm, on common seeds."""
    arms = _arms(results)
    first = results[0].arm if results else ""
    found = []
    for arm, runs in arms.items():
        pairs = list(_pairs(arms.get(first, []), runs)) if arm != first else []
        for metric in dict.fromkeys(metric for pair in pairs for metric in pair[0].metrics):
            both = [pair for pair in pairs if all(metric in run.metrics for run in pair)]
            if both:
                change = np.array([run.metrics[metric] - base.metrics[metric] for base, run in both])
                ends = interval(change), over_clips(metric, both)
                mean = float(change.mean())
                found.append(Difference(arm, first, metric, len(both), mean, *ends[0], *ends[1]))
    return found


def interval(values: np.ndarray) -> tuple[float | None, float | None]:
    """The 95% interval of the mean by Student's t; None for fewer than two values."""
    if len(values) < 2:
        return None, None
    reach = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * stats.sem(values)
    return float(values.mean() - reach), float(values.mean() + reach)


def over_clips(metric: str, pairs: Sequence[tuple[Result, Result]]) -> tuple[float | None, float | None]:
    """The interval of a difference over the clips that all runs could read, each clip with its means over the seeds."""
    if metric not in OF_CLIPS:
        return None, None
    evaluations = [run.heldout for pair in pairs for run in pair]
    known = [evaluation for evaluation in evaluations if evaluation is not None]
    if len(known) < len(evaluations):
        return None, None
    common = known[0]
    for evaluation in known[1:]:
        common, _ = common_clips(common, evaluation)
    values = np.array([_on(common, evaluation, OF_CLIPS[metric]) for evaluation in known])
    base, arm = values[0::2].mean(axis=0), values[1::2].mean(axis=0)
    labelled = np.isfinite(base)  # which does not depend on the policy
    return paired_bootstrap_ci(base[labelled], arm[labelled]) if labelled.any() else (None, None)


def _on(common: Evaluation, evaluation: Evaluation, name: str) -> np.ndarray:
    """A measure of `evaluation` on the clips of `common`, in their order."""
    place = {clip: n for n, clip in enumerate(evaluation.clips)}
    return getattr(evaluation, name)[[place[clip] for clip in common.clips]]


def _arms(results: Sequence[Result]) -> dict[str, list[Result]]:
    arms: dict[str, list[Result]] = {}
    for run in results:
        if run.finished:
            arms.setdefault(run.arm, []).append(run)
    return arms


def _pairs(base: Sequence[Result], runs: Sequence[Result]) -> Iterator[tuple[Result, Result]]:
    """The runs of two arms with the same seed."""
    by_seed = {run.seed: run for run in base}
    return ((by_seed[run.seed], run) for run in runs if run.seed in by_seed)
