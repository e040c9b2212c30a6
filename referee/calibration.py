"""How far a referee can be trusted: its scores against labels, overall and per stratum. numpy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def auroc(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Chance that a positive scores above a negative, ties half (Mann-Whitney U); NaN if either is empty."""
    if len(positives) == 0 or len(negatives) == 0:
        return float("nan")
    scores = np.concatenate([positives, negatives])
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mid_ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    wins = mid_ranks[: len(positives)].sum() - len(positives) * (len(positives) + 1) / 2
    return float(wins / (len(positives) * len(negatives)))


def referee_report(labels: Sequence[int], scores: Sequence[float], strata: Sequence[str]) -> dict[str, object]:
    """Agreement of one kind of verdict with its labels.

    `labels` are 0, 1 or 2, `scores` in [0, 1], `strata` names, all of length N. A positive is a label of 2, a negative
    a label of 0; label 1 is in neither class and appears in the strata's counts and means alone. A stratum's AUROC sets
    its own positives against all negatives (`auroc_positives`) and its own negatives against all positives
    (`auroc_negatives`); None where there is nothing to compare. Raises ValueError if the lengths differ.
    """
    label, value, stratum = np.asarray(labels), np.asarray(scores, np.float64), np.asarray(strata)
    if not len(label) == len(value) == len(stratum):
        raise ValueError(f"{len(label)} labels, {len(value)} scores, {len(stratum)} strata")
    positives, negatives = value[label == 2], value[label == 0]

    def known(number: float) -> float | None:
        return None if np.isnan(number) else round(number, 4)

    table = {}
    for name in sorted(set(strata)):
        of = stratum == name
        table[name] = {
            "n": int(of.sum()),
            "labels": [int((label[of] == k).sum()) for k in range(3)],
            "mean_score": round(float(value[of].mean()), 4),
            "auroc_positives": known(auroc(value[of & (label == 2)], negatives)),
            "auroc_negatives": known(auroc(positives, value[of & (label == 0)])),
        }
    return {
        "auroc": known(auroc(positives, negatives)),
        "positives": len(positives),
        "negatives": len(negatives),
        "strata": table,
    }
