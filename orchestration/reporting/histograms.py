"""Distributions of a step, with the same content in metrics.jsonl and in wandb. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evidence.types import ScoredGroup

BINS = 20


@dataclass(frozen=True)
class Histogram:
    """counts[i]: of the values from edges[i] up to edges[i + 1], the last edge included."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


def histogram(values: Sequence[float] | np.ndarray, edges: int | Sequence[float] | np.ndarray) -> Histogram:
    """Of the values that lie within the edges. `edges`: or into how many bins to divide the range of the values."""
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
        "histogram/reward": histogram(np.concatenate([scored.rewards for scored in groups]), BINS),
    }
