"""Distributions of a step, with the same content in metrics.jsonl and in wandb. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evidence.types import ScoredGroup

BINS = 20
LEAST_RANGE = 1e-5


@dataclass(frozen=True)
class Histogram:
    """counts[i]: of the values from edges[i] up to edges[i + 1], the last edge included."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


def histogram(values: Sequence[float] | np.ndarray, edges: Sequence[float] | np.ndarray) -> Histogram:
    """Of the values that lie within the edges."""
    counts, at = np.histogram(values, edges)
    return Histogram(tuple(at.tolist()), tuple(counts.tolist()))


def step_histograms(
    groups: Sequence[ScoredGroup], ages: Sequence[int], worst_age: int, longest: int
) -> dict[str, Histogram]:
    """Of the groups' `ages` in versions, at most `worst_age`; and of their completions' lengths, at most `longest`
    tokens, and rewards."""
    lengths = [len(trajectory.token_ids) for scored in groups for trajectory in scored.group.trajectories]
    return {
        "histogram/staleness": histogram(ages, np.arange(worst_age + 2) - 0.5),
        "histogram/length": histogram(lengths, np.linspace(0, longest, BINS + 1)),
        "histogram/reward": histogram(*_binned(np.concatenate([scored.rewards for scored in groups]))),
    }


def _binned(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The finite values, and edges around them. Rewards that differ by less than float32 resolves share a bin."""
    known = values[np.isfinite(values)].astype(np.float64)
    low, high = (known.min(), known.max()) if known.size else (0.0, 0.0)
    if high - low < LEAST_RANGE * max(1.0, abs(low), abs(high)):
        low, high = low - 0.5, high + 0.5
    return known, np.linspace(low, high, BINS + 1)
