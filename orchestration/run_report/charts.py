"""Which curves the report has, as plain series. Pure.

A chart has a line for each run, or several lines (as mean, maximum and bound) for each run. A value that a step lacks
leaves a gap in its line. Long runs are thinned to means of equal parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from orchestration.run_report.recorded import Run
from orchestration.run_report.stages import STAGES, number, stage_seconds

MOST_POINTS = 400
SMOOTHED_SHARE = 0.05  # of a run's steps, on either side, that the thick line averages
Value = Callable[[Run, Mapping[str, Any]], float | None]


@dataclass(frozen=True)
class Line:
    """run: its index. style: 0, 1, 2 … of several lines of a run, named `label`. x: steps. y: NaN where unknown.
    smooth: whether to draw a moving mean above the values."""

    run: int
    x: np.ndarray
    y: np.ndarray
    label: str = ""
    style: int = 0
    smooth: bool = True


@dataclass(frozen=True)
class Chart:
    """stacked: whether the lines, all of one run, are drawn as layers on each other."""

    section: str
    title: str
    note: str
    lines: tuple[Line, ...]
    stacked: bool = False


@dataclass(frozen=True)
class Measure:
    """What a chart shows. keys: of metrics.jsonl, with the label of each where there are several."""

    section: str
    title: str
    note: str
    keys: Mapping[str, str] = field(default_factory=dict)
    value: Value | None = None


REWARD, LEARNING, ROLLOUT = "Reward and evidence", "Learning", "Completions and staleness"
TIME, STAGE = "Throughput", "Seconds by stage"
BOUND, SHARE = "staleness/bound", "learner/advantage_share/"
MEASURES = (
    Measure(
        REWARD,
        "Share of groups without contrast",
        "All completions of the group got the same reward.",
        {"reward/equal_groups": ""},
    ),
    Measure(
        REWARD,
        "Agreement of referee and labels",
        "Spearman correlation of the claims' scores with their IoU with labelled boxes, over a window of steps.",
        {"agreement/spearman": ""},
    ),
    Measure(
        REWARD, "IoU with labelled boxes", "Of the claims in the same window. No reward sees it.", {"agreement/iou": ""}
    ),
    Measure(REWARD, "Claims per completion", "Valid ones.", {"claims/per_completion": ""}),
    Measure(REWARD, "Box area", "Of valid claims, as a share of the frame.", {"claims/box_area": ""}),
    Measure(
        REWARD,
        "Commonest phrase",
        "Share of the prompts whose claims mostly name one and the same object.",
        {"claims/top_phrase_share": ""},
    ),
    Measure(LEARNING, "Loss", "", {"learner/loss": ""}),
    Measure(LEARNING, "Learning rate", "", {"learner/learning_rate": ""}),
    Measure(
        LEARNING,
        "KL to the behaviour policy",
        "Of the trained policy from the one that drew the tokens.",
        {"learner/behaviour_kl": ""},
    ),
    Measure(LEARNING, "KL to the reference", "", {"learner/kl": ""}),
    Measure(LEARNING, "Entropy", "", {"learner/entropy": ""}),
    Measure(LEARNING, "Gradient norm", "", {"learner/grad_norm": ""}),
    Measure(LEARNING, "Share of clipped tokens", "", {"learner/clipped": ""}),
    Measure(ROLLOUT, "Tokens per completion", "", {"rollout/tokens": ""}),
    Measure(ROLLOUT, "Share cut at the greatest length", "", {"rollout/cut_short": ""}),
    Measure(ROLLOUT, "Weight versions per completion", "", {"rollout/versions": ""}),
    Measure(
        ROLLOUT,
        "Staleness",
        "Age of the trained groups, in weight versions.",
        {"staleness/mean": "mean", "staleness/max": "largest", BOUND: "bound"},
    ),
    Measure(
        TIME,
        "Completions per second",
        "Trained, over the seconds of the step.",
        value=lambda run, line: completions_per_s(run, line),
    ),
    Measure(TIME, "Drawn tokens per second", "By all rollout engines.", {"rollout/tokens_per_s": ""}),
    Measure(
        TIME,
        "Tokens per second",
        "Of trained completions, over the seconds of the step.",
        value=lambda run, line: tokens_per_s(run, line),
    ),
)


def charts(runs: Sequence[Run]) -> list[Chart]:
    """All charts with at least one known value, by section, in a fixed order."""
    measures = [*reward_measures(runs), *MEASURES]
    drawn = [chart for measure in measures if (chart := of_measure(measure, runs)) is not None]
    reward = [chart for chart in drawn if chart.section == REWARD]
    rest = [chart for chart in drawn if chart.section != REWARD]
    return [*reward, *evaluations(runs), *rest, *stage_charts(runs)]


def reward_measures(runs: Sequence[Run]) -> list[Measure]:
    """The reward, and each of its terms in any run."""
    keys = dict.fromkeys(key for run in runs for line in run.steps for key in line)
    terms = [key for key in keys if key.startswith("reward/") and key.count("/") == 1 and key != "reward/equal_groups"]
    named = [
        Measure(
            REWARD, "Reward", "Mean over the completions of the step: the weighted sum of the terms.", {"reward": ""}
        )
    ]
    for key in terms:
        term = key.removeprefix("reward/")
        title = "Term ser: r_SER" if term == "ser" else f"Term {term}"
        named.append(Measure(REWARD, title, "Mean before weight and gate.", {key: ""}))
    shares = {key: key.removeprefix(SHARE) for key in keys if key.startswith(SHARE)}
    pays = "Share of each term in the spread of the advantages; one that works against the others is negative."
    return [*named, Measure(REWARD, "Which term pays", pays, shares)] if shares else named


def of_measure(measure: Measure, runs: Sequence[Run]) -> Chart | None:
    lines = []
    for index, run in enumerate(runs):
        if measure.value is not None:
            lines.append(_line(index, run, measure.value))
        for style, (key, label) in enumerate(measure.keys.items()):
            lines.append(_line(index, run, lambda _, line, key=key: number(line.get(key)), label, style))  # type: ignore[misc]
    known = tuple(line for line in lines if line is not None)
    return Chart(measure.section, measure.title, measure.note, known) if known else None


def _line(index: int, run: Run, value: Value, label: str = "", style: int = 0) -> Line | None:
    y = np.array([np.nan if (known := value(run, line)) is None else known for line in run.steps], np.float64)
    if np.isnan(y).all():
        return None
    x = np.array([line["step"] for line in run.steps], np.float64)
    return Line(index, *thinned(x, y), label, style, smooth=not label)


def thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most MOST_POINTS points: means over equal numbers of steps, of the known values."""
    if len(x) <= MOST_POINTS:
        return x, y
    parts = np.array_split(np.arange(len(x)), MOST_POINTS)
    means = [np.nan if np.isnan(y[part]).all() else float(np.nanmean(y[part])) for part in parts]
    return np.array([x[part].mean() for part in parts]), np.array(means)


def smoothed(y: np.ndarray) -> np.ndarray:
    """The mean of the known values around each point; NaN where there are none."""
    reach = int(len(y) * SMOOTHED_SHARE)
    windows = [y[max(0, place - reach) : place + reach + 1] for place in range(len(y))]
    return np.array([np.nan if np.isnan(window).all() else np.nanmean(window) for window in windows])


def evaluations(runs: Sequence[Run]) -> list[Chart]:
    """The results of evaluations during training: a chart for each set and metric."""
    names = dict.fromkeys(
        (str(line["set"]), key)
        for run in runs
        for line in run.evaluations
        for key in line
        if key not in ("step", "version", "set", "n", "seconds") and number(line[key]) is not None
    )
    drawn = []
    for name, key in names:
        lines = []
        for index, run in enumerate(runs):
            points = [(line["step"], number(line.get(key))) for line in run.evaluations if line["set"] == name]
            known = [(step, value) for step, value in points if value is not None]
            if known:
                x, y = np.array(known, np.float64).T
                lines.append(Line(index, x, y, smooth=False))
        note = "Evaluated during training, greedily."
        drawn.append(Chart("Evaluations during training", f"{name}: {key}", note, tuple(lines)))
    return drawn


def stage_charts(runs: Sequence[Run]) -> list[Chart]:
    """For each run, the seconds of its steps by stage."""
    drawn = []
    for index, run in enumerate(runs):
        known = [(line["step"], stages) for line in run.steps if (stages := stage_seconds(line)) is not None]
        if not known:
            continue
        steps = np.array([step for step, _ in known], np.float64)
        lines = []
        for style, stage in enumerate(STAGES):
            seconds = np.array([stages[stage] for _, stages in known])
            if seconds.any():
                lines.append(Line(index, *thinned(steps, smoothed(seconds)), stage, style, smooth=False))
        title = f"Seconds of a step: {run.name}" if len(runs) > 1 else "Seconds of a step"
        note = "A moving mean; the stages lie on each other."
        drawn.append(Chart(STAGE, title, note, tuple(lines), stacked=True))
    return drawn


def completions_per_s(run: Run, line: Mapping[str, Any]) -> float | None:
    seconds = number(line.get("time/step_s"))
    if run.config is None or not seconds:
        return None
    return run.config.pacing.groups_per_step * run.config.sampling.group_size / seconds


def tokens_per_s(run: Run, line: Mapping[str, Any]) -> float | None:
    rate, tokens = completions_per_s(run, line), number(line.get("rollout/tokens"))
    return None if rate is None or tokens is None else rate * tokens
