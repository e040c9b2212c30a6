"""Statistics that measure how far a referee can be trusted: rank agreement, kappa, calibration error, intervals.

Pure functions on arrays of length N, by scikit-learn and scipy. A figure that the data does not determine (one class
only, a constant, no data) is NaN, never a made-up value.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score, roc_auc_score

BINS = 10
THRESHOLDS = tuple(round(0.1 * k, 1) for k in range(1, 10))
NAN = float("nan")


def auroc(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Probability that a positive scores above a negative, with ties counted half; NaN if either is empty."""
    if len(positives) == 0 or len(negatives) == 0:
        return NAN
    truth = np.repeat([1, 0], [len(positives), len(negatives)])
    return float(roc_auc_score(truth, np.concatenate([positives, negatives])))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation in [-1, 1]; NaN if either is constant."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return NAN
    return float(spearmanr(a, b).statistic)


def kappa(a: np.ndarray, b: np.ndarray) -> float:
    """Cohen's kappa of two raters' categories: 1 for full agreement, 0 for chance; NaN if both use one and the same
    category throughout."""
    if len(a) == 0 or (np.ptp(a) == 0 and np.ptp(b) == 0 and a[0] == b[0]):
        return NAN
    return float(cohen_kappa_score(a, b))


@dataclass(frozen=True)
class Bin:
    """The readings from `low` up to `high`: their number, their mean, and the mean of their truth."""

    low: float
    high: float
    n: int
    reading: float
    truth: float


def reliability(readings: np.ndarray, truth: np.ndarray) -> list[Bin]:
    """The reliability curve: BINS equal bins over [0, 1], empty ones left out; both arrays are float [N] in [0, 1].
    Raises ValueError for a reading that is NaN or infinite: it would be in no bin, and missing unseen."""
    if not np.isfinite(readings).all():
        raise ValueError("readings must be finite")
    bins = np.minimum((readings * BINS).astype(int), BINS - 1)
    return [
        Bin(k / BINS, (k + 1) / BINS, int(inside.sum()), float(readings[inside].mean()), float(truth[inside].mean()))
        for k in range(BINS)
        if (inside := bins == k).any()
    ]


def calibration_error(readings: np.ndarray, truth: np.ndarray) -> float:
    """Expected calibration error: the distance of a bin's mean reading from its mean truth, averaged over readings."""
    bins = reliability(readings, truth)
    return sum(b.n * abs(b.reading - b.truth) for b in bins) / len(readings) if bins else NAN


@dataclass(frozen=True)
class Cutoff:
    """Precision, recall and their harmonic mean if readings of `threshold` or more count as positive."""

    threshold: float
    precision: float
    recall: float
    f1: float


def threshold_table(readings: np.ndarray, positive: np.ndarray) -> list[Cutoff]:
    """One Cutoff for each of THRESHOLDS; `positive` is bool [N]. Precision is NaN if no reading reaches it."""
    cuts = []
    for threshold in THRESHOLDS:
        predicted = readings >= threshold
        hits = int((predicted & positive).sum())
        precision = hits / predicted.sum() if predicted.any() else NAN
        recall = hits / positive.sum() if positive.any() else NAN
        f1 = 2 * hits / (predicted.sum() + positive.sum()) if predicted.any() or positive.any() else NAN
        cuts.append(Cutoff(threshold, float(precision), float(recall), float(f1)))
    return cuts


def bootstrap(
    clips: Sequence[Hashable], statistic: Callable[[np.ndarray], float], resamples: int, seed: int
) -> tuple[float, float]:
    """The 95% percentile interval of `statistic(indices)`, where `indices`, int [M], select among the N claims.

    Whole clips are drawn with replacement, since claims about one clip are not independent. Resamples whose statistic
    is NaN are left out; if all are, both ends are NaN.
    """
    _, clip = np.unique(np.asarray(clips), return_inverse=True)
    members = [np.flatnonzero(clip == k) for k in range(clip.max() + 1)] if len(clip) else []
    rng = np.random.default_rng(seed)
    values = [
        statistic(np.concatenate([members[k] for k in rng.integers(0, len(members), len(members))]))
        for _ in range(resamples if members else 0)
    ]
    known = [value for value in values if not np.isnan(value)]
    low, high = np.percentile(known, [2.5, 97.5]) if known else (NAN, NAN)
    return float(low), float(high)
