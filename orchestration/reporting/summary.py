"""What a run achieved: held-out clips before and after training, paired, as the one dict that summary.json holds.

Guarantees: before and after are compared clip by clip, and unlike sets of clips are refused; the interval is seeded, so
the same results give the same file; the file is either the whole summary or not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from evidence.files import write_text
from evidence.plain import dumps
from orchestration.loop.ledger import Ledger
from orchestration.machine import version


@dataclass(frozen=True)
class Evaluation:
    """One policy on N held-out clips, one completion each; all arrays are float [N].

    reward: r_SER, without the accuracy and format terms.
    accuracy: 1 where the answer is right, else 0.
    iou: mean IoU of the completion's boxes with the labelled ones; 0 for a completion without a valid claim.
    claims, valid_claims: how many claims the completion makes, and how many of them are whole.
    box_area: mean area of its boxes as a share of the frame; NaN without a valid claim.
    """

    clips: tuple[str, ...]
    reward: np.ndarray
    accuracy: np.ndarray
    iou: np.ndarray
    claims: np.ndarray
    valid_claims: np.ndarray
    box_area: np.ndarray


@dataclass(frozen=True)
class RunFacts:
    """What the run itself knows. `ages`: of each trained group, in versions, at the step that trained it."""

    ages: Sequence[int]
    staleness_bound: int
    wall_s: float
    versions: dict[str, str]


def paired_bootstrap_ci(
    before: np.ndarray, after: np.ndarray, level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of mean(after - before); `before` and `after` are float [N], paired by clip.

    Clips are drawn with replacement, each with both its values (Efron and Tibshirani 1993, section 13.3).
    Raises ValueError for arrays of different or no length, or with values that are not finite.
    """
    if before.shape != after.shape or before.ndim != 1 or before.size == 0:
        raise ValueError(f"pairs of one value per clip are needed, not shapes {before.shape} and {after.shape}")
    difference = np.asarray(after, np.float64) - before
    if not np.isfinite(difference).all():
        raise ValueError("a paired interval needs finite values for every clip")
    rng = np.random.default_rng(seed)
    n = difference.size
    means = [difference[rng.integers(n, size=n)].mean() for _ in range(draws)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def in_both(before: Evaluation, after: Evaluation) -> tuple[Evaluation, Evaluation]:
    """Both on the clips that both could read: a decoder that timed out once is no reason to lose the comparison."""
    common = set(before.clips) & set(after.clips)

    def kept(found: Evaluation) -> Evaluation:
        where = [n for n, clip in enumerate(found.clips) if clip in common]
        columns = {f.name: getattr(found, f.name)[where] for f in fields(Evaluation) if f.name != "clips"}
        return Evaluation(tuple(found.clips[n] for n in where), **columns)

    return kept(before), kept(after)


def training(facts: RunFacts) -> dict[str, Any]:
    """The part of summary.json that is about the training itself. Raises ValueError when no group was trained: then
    there is nothing to sum up."""
    if not facts.ages:
        raise ValueError("no group was trained")
    return {
        "trained_groups": len(facts.ages),
        "staleness_mean": float(np.mean(facts.ages)),
        "staleness_max": max(facts.ages),
        "staleness_bound": facts.staleness_bound,
        "wall_s": facts.wall_s,
        "versions": facts.versions,
    }


def comparison(before: Evaluation, after: Evaluation, seed: int = 0) -> dict[str, Any]:
    """The part about the policy: plain data; a mean over nothing is None.

    `reward_ci95` is the interval of reward_after - reward_before; accuracy and iou have theirs. Raises ValueError
    unless both evaluations are of the same clips in the same order.
    """
    if before.clips != after.clips:
        raise ValueError("before and after are not the same clips in the same order")
    report: dict[str, Any] = {"heldout_clips": len(before.clips)}
    for name in ("reward", "accuracy", "iou"):
        pair = getattr(before, name), getattr(after, name)
        report |= {f"{name}_before": _mean(pair[0]), f"{name}_after": _mean(pair[1])}
        report[f"{name}_ci95"] = list(paired_bootstrap_ci(*pair, seed=seed))
    for when, found in (("before", before), ("after", after)):
        report[f"claims_{when}"] = _mean(found.claims)
        report[f"valid_claim_share_{when}"] = _mean(found.valid_claims > 0)
        report[f"box_area_{when}"] = _mean(found.box_area[~np.isnan(found.box_area)])
    return report


def installed_versions() -> dict[str, str]:
    """Versions of the parts a result depends on."""
    return {name: version(name) or "unknown" for name in ("ray", "vllm", "deepspeed", "torch", "transformers")}


def summary(
    facts: RunFacts, before: Sequence[Evaluation], after: Sequence[Evaluation], ledger: Ledger
) -> dict[str, Any]:
    """All of summary.json. `before`, `after`: [greedy, sampled], or empty where nothing was held out."""
    report = training(facts)
    if before and after:
        report |= comparison(*in_both(before[0], after[0]))
        report["sampled"] = comparison(*in_both(before[1], after[1]))
    report["outcomes"] = ledger.counts() | {f"rejected: {reason}": n for reason, n in ledger.rejections().items()}
    return report


def write_summary(path: Path, report: dict[str, Any]) -> None:
    """Write `report` as JSON, whole."""
    write_text(path, dumps(report, indent=2) + "\n")


def _mean(values: np.ndarray) -> float | None:
    return float(np.mean(values)) if values.size else None
