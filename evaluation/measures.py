"""Metrics as functions of sums over samples, and their intervals by resampling whole videos. Pure.

Every metric of every benchmark here is computed from sums over its samples: a share, a mean, or a function of means
such as V-STaR's LGM. So one table of columns per sample gives the metrics, their bootstrap intervals, and the paired
comparison of two models, with the same code. Questions about one video are not independent, so whole videos are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

RESAMPLES = 1000
LEVEL = (2.5, 97.5)  # percentiles of a 95% interval
Key = tuple[str, ...]  # a metric's name, such as ("chain1", "m_tiou")
# Sums, float [..., K] -> each metric, float [...]; NaN where the sums do not determine it.
Metrics = Callable[[np.ndarray], dict[Key, np.ndarray]]


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole) > 0)


def values(columns: np.ndarray, metrics: Metrics) -> dict[Key, float]:
    """The metrics of all samples; columns: float [N, K]."""
    return {key: float(value) for key, value in metrics(columns.sum(axis=0)).items()}


def intervals(
    videos: Sequence[Hashable], columns: np.ndarray, metrics: Metrics, resamples: int = RESAMPLES, seed: int = 0
) -> dict[Key, tuple[float, float]]:
    """The 95% percentile interval of each metric; `videos`, N of them, and columns, float [N, K].

    The same resamples as those of referee.trust.statistics.bootstrap for the same seed, for all metrics at once.
    Resamples in which a metric is NaN are left out; if all are, both ends are NaN.
    """
    drawn = metrics(_drawn_sums(videos, columns, resamples, seed))
    return {key: _interval(values) for key, values in drawn.items()}


def paired(
    videos: Sequence[Hashable],
    first: np.ndarray,
    second: np.ndarray,
    metrics: Metrics,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[Key, tuple[float, float, float]]:
    """For each metric, its difference second - first with the ends of its 95% interval; rows of `first` and `second`,
    float [N, K], are about the same samples. Each resample draws the same videos for both."""
    a, b = (metrics(_drawn_sums(videos, columns, resamples, seed)) for columns in (first, second))
    known_a, known_b = values(first, metrics), values(second, metrics)
    return {key: (known_b[key] - known_a[key], *_interval(b[key] - a[key])) for key in known_a}


def nested(flat: Mapping[Key, Any]) -> dict[str, Any]:
    """{("chain1", "am"): 1} as {"chain1": {"am": 1}}."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        branch = tree
        for name in key[:-1]:
            branch = branch.setdefault(name, {})
        branch[key[-1]] = value
    return tree


def _drawn_sums(videos: Sequence[Hashable], columns: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Sums of the columns over each resample, float [R, K]."""
    _, video = np.unique(np.asarray(videos), return_inverse=True)
    n = int(video.max()) + 1
    sums = np.zeros((n, columns.shape[1]))
    np.add.at(sums, video, columns)
    rng = np.random.default_rng(seed)
    times_drawn = np.stack([np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(resamples)])
    return times_drawn @ sums


def _interval(drawn: np.ndarray) -> tuple[float, float]:
    known = drawn[~np.isnan(drawn)]
    if not known.size:
        return float("nan"), float("nan")
    low, high = np.percentile(known, LEVEL)
    return float(low), float(high)
