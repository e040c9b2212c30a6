"""Agreement of one kind of verdict with its labels, overall and per stratum, for a referee's model card. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evidence.plain import plain
from referee.trust.statistics import auroc


def referee_report(labels: Sequence[int], scores: Sequence[float], strata: Sequence[str]) -> dict[str, Any]:
    """Agreement of one kind of verdict with its labels.

    `labels` are 0, 1 or 2, `scores` in [0, 1], `strata` names, all of length N. Label 2 is positive, label 0 negative;
    label 1 is in neither class and only counts in the strata's counts and means. A stratum has two AUROCs: its
    positives against all negatives (`auroc_positives`) and its negatives against all positives (`auroc_negatives`);
    None if a class is empty. Raises ValueError if the lengths differ.
    """
    label, value, stratum = np.asarray(labels), np.asarray(scores, np.float64), np.asarray(strata)
    if not len(label) == len(value) == len(stratum):
        raise ValueError(f"{len(label)} labels, {len(value)} scores, {len(stratum)} strata")
    positives, negatives = value[label == 2], value[label == 0]

    table = {}
    for name in sorted(set(strata)):
        inside = stratum == name
        table[name] = {
            "n": int(inside.sum()),
            "labels": [int((label[inside] == k).sum()) for k in range(3)],
            "mean_score": float(value[inside].mean()),
            "auroc_positives": auroc(value[inside & (label == 2)], negatives),
            "auroc_negatives": auroc(positives, value[inside & (label == 0)]),
        }
    report = {
        "auroc": auroc(positives, negatives),
        "positives": len(positives),
        "negatives": len(negatives),
        "strata": table,
    }
    return plain(report, places=4)
