"""Two policies compared on the same held-out clips.

Guarantees: they are compared clip by clip, and different sets of clips are refused; the interval is seeded, so equal
results give equal reports. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from evaluation.heldout import ClipRecord


@dataclass(frozen=True)
class Evaluation:
    """One policy on N held-out clips, one completion each; all arrays are float [N].

    reward: r_SER, without the accuracy and format terms.
    accuracy: 1 where the answer is right, else 0.
    iou: mean IoU of the completion's boxes with the labelled ones; 0 for a completion without a valid claim, NaN for a
        clip without labels.
    claims, valid_claims: the number of claims in the completion, and how many of them are complete.
    box_area: mean area of its boxes as a share of the frame; NaN without a valid claim.
    """

    clips: tuple[str, ...]
    reward: np.ndarray
    accuracy: np.ndarray
    iou: np.ndarray
    claims: np.ndarray
    valid_claims: np.ndarray
    box_area: np.ndarray


def as_evaluation(records: Sequence[ClipRecord]) -> Evaluation:
    """Raises ValueError if a verdict is missing: means over fewer clips would not compare."""
    missing = [r.clip for r in records if np.isnan(r.reward)]
    if missing:
        raise ValueError(f"{len(missing)} held-out clips have no verdict, {missing[0]} first; is the referee alive?")

    def column(name: str) -> np.ndarray:
        return np.array([getattr(r, name) for r in records], np.float64)

    return Evaluation(
        clips=tuple(r.clip for r in records),
        reward=column("reward"),
        accuracy=column("accuracy"),
        iou=column("iou"),
        claims=column("claims"),
        valid_claims=column("valid_claims"),
        box_area=column("box_area"),
    )


def paired_bootstrap_ci(
    before: np.ndarray, after: np.ndarray, level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of mean(after - before); `before` and `after` are float [N], paired by clip.

    Clips are drawn with replacement, each with both of its values (Efron and Tibshirani 1993, section 13.3).
    Raises ValueError for arrays that are empty, of different lengths, or not finite.
    """
    if before.shape != after.shape or before.ndim != 1 or before.size == 0:
        raise ValueError(f"shapes {before.shape} and {after.shape}: must be equal, with one value per clip")
    difference = np.asarray(after, np.float64) - before
    if not np.isfinite(difference).all():
        raise ValueError("a paired interval needs a finite value for every clip")
    rng = np.random.default_rng(seed)
    n = difference.size
    means = [difference[rng.integers(n, size=n)].mean() for _ in range(draws)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def common_clips(before: Evaluation, after: Evaluation) -> tuple[Evaluation, Evaluation]:
    """Both evaluations on the clips that both could read: one decoder timeout must not cost the comparison."""
    common = set(before.clips) & set(after.clips)

    def on_common(evaluation: Evaluation) -> Evaluation:
        rows = [n for n, clip in enumerate(evaluation.clips) if clip in common]
        columns = {f.name: getattr(evaluation, f.name)[rows] for f in fields(Evaluation) if f.name != "clips"}
        return Evaluation(tuple(evaluation.clips[n] for n in rows), **columns)

    return on_common(before), on_common(after)


def comparison(before: Evaluation, after: Evaluation, seed: int = 0) -> dict[str, Any]:
    """The part of summary.json about the policy, as plain data. A mean over no values is None, and so is its interval.

    `reward_ci95` is the interval of reward_after - reward_before; accuracy and iou have intervals, too. The IoU is that
    of the labelled clips. Raises ValueError unless both evaluations cover the same clips in the same order.
    """
    if before.clips != after.clips:
        raise ValueError("before and after are not the same clips in the same order")
    report: dict[str, Any] = {"heldout_clips": len(before.clips)}
    for name in ("reward", "accuracy", "iou"):
        # Whether a clip is labelled does not depend on the policy.
        clips = ~np.isnan(before.iou) if name == "iou" else np.full(len(before.clips), True)
        pair = getattr(before, name)[clips], getattr(after, name)[clips]
        report |= {f"{name}_before": known_mean(pair[0]), f"{name}_after": known_mean(pair[1])}
        report[f"{name}_ci95"] = list(paired_bootstrap_ci(*pair, seed=seed)) if clips.any() else None
    for when, evaluation in (("before", before), ("after", after)):
        report[f"claims_{when}"] = known_mean(evaluation.claims)
        report[f"valid_claim_share_{when}"] = known_mean(evaluation.valid_claims > 0)
        report[f"box_area_{when}"] = known_mean(evaluation.box_area)
    return report


def known_mean(values: np.ndarray) -> float | None:
    """The mean of the values that are not NaN; None if there are none."""
    known = values[~np.isnan(values)]
    return float(np.mean(known)) if known.size else None
