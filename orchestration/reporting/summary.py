"""The results of a run, as in summary.json: facts of the training, and held-out clips before and after it.

Guarantee: the file is written as a whole or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.comparison import Evaluation, common_clips, comparison
from evidence.files import write_text
from evidence.plain import dumps
from learner.best_checkpoint import Best
from orchestration.loop.ledger import Ledger
from orchestration.loop.parity import Parity
from orchestration.machine import version

SUMMARY = "summary.json"


@dataclass(frozen=True)
class RunFacts:
    """Facts about the training. ages: the number of trained groups by their age at their step, in versions. wall_s: its
    duration in seconds. versions: of the packages that results depend on. best: the best checkpoint, if one is kept."""

    ages: Mapping[int, int]
    staleness_bound: int
    wall_s: float
    versions: dict[str, str]
    best: Best | None = None


def training(facts: RunFacts) -> dict[str, Any]:
    """The part of summary.json about the training. Raises ValueError if no group was trained: there is nothing to
    summarise."""
    if not facts.ages:
        raise ValueError("no group was trained")
    return {
        "trained_groups": sum(facts.ages.values()),
        "staleness_mean": float(np.average(list(facts.ages), weights=list(facts.ages.values()))),
        "staleness_max": max(facts.ages),
        "staleness_bound": facts.staleness_bound,
        "wall_s": facts.wall_s,
        "versions": facts.versions,
        **({} if facts.best is None else {"best_checkpoint": asdict(facts.best)}),
    }


def installed_versions() -> dict[str, str]:
    """Versions of the packages that results depend on."""
    return {name: version(name) or "unknown" for name in ("ray", "vllm", "deepspeed", "torch", "transformers")}


def summary(
    facts: RunFacts, parity: Parity, before: Sequence[Evaluation], after: Sequence[Evaluation], ledger: Ledger
) -> dict[str, Any]:
    """The content of summary.json. `parity`: at the last start of the run. `before`, `after`: [greedy, sampled], or
    empty without held-out clips."""
    report = training(facts) | {"parity": asdict(parity)}
    if before and after:
        report |= comparison(*common_clips(before[0], after[0]))
        report["sampled"] = comparison(*common_clips(before[1], after[1]))
    report["outcomes"] = ledger.counts() | {f"rejected: {reason}": n for reason, n in ledger.rejections().items()}
    return report


def write_summary(path: Path, report: dict[str, Any]) -> None:
    """Write `report` as JSON, atomically."""
    write_text(path, dumps(report, indent=2) + "\n")
