"""`ser ledger RUN`: what became of every prompt of a run, and whether each was trained exactly once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from evidence.errors import BadInput, RunFailed
from evidence.lines import records
from evidence.plain import dumps
from orchestration.config import load_config
from orchestration.loop.journal import JOURNAL, Fate, audit, fates
from orchestration.loop.ledger import State
from orchestration.reporting.summary import SUMMARY
from orchestration.run_directory import CONFIG
from orchestration.settings import TrainConfig

METRICS = "metrics.jsonl"


def main(run_dir: Path, as_json: bool) -> None:
    """Print each group's fate, or one JSON line a group.

    Raises BadInput for a folder without a ledger, and RunFailed if the audit finds a fault.
    """
    if not (run_dir / JOURNAL).is_file():
        raise BadInput(f"{run_dir}: holds no {JOURNAL}; give the folder of a `ser train` run")
    groups = fates(records(run_dir / JOURNAL))
    problems = faults(run_dir, groups)
    if as_json:
        for group, fate in groups.items():
            print(dumps(line(group, fate)))
    else:
        _print_table(groups)
    if problems:
        raise RunFailed(f"{run_dir}: " + "; ".join(problems))


def faults(run_dir: Path, groups: dict[int, Fate]) -> list[str]:
    """What the audit finds wrong with a run, from its files alone."""
    metrics = records(run_dir / METRICS) if (run_dir / METRICS).exists() else ()
    per_step = load_config(TrainConfig, run_dir / CONFIG).pacing.groups_per_step
    return audit(groups, metrics, per_step, finished=(run_dir / SUMMARY).exists())


def line(group: int, fate: Fate) -> dict[str, Any]:
    return {
        "group": group,
        "sample": fate.sample,
        "state": fate.state,
        "reason": fate.reason,
        "lineage": fate.lineage,
        "step": fate.step,
    }


def _print_table(groups: dict[int, Fate]) -> None:
    for group, fate in groups.items():
        where = f" in step {fate.step}, lineage {fate.lineage}" if fate.step is not None else ""
        reason = f" ({fate.reason})" if fate.reason else ""
        print(f"group {group:6d}  {fate.state}{where}{reason}  {fate.sample}")
    counts = Counter(fate.state for fate in groups.values())
    reasons = Counter(fate.reason for fate in groups.values() if fate.state == State.REJECTED)
    print(f"{len(groups)} groups: " + ", ".join(f"{n} {state}" for state, n in counts.items()))
    for why, n in reasons.items():
        print(f"rejected for {why}: {n}")
