"""What must hold of a run by its files, whatever happened to it. Counts lost and doubled groups anew, independently of
`ser ledger`, whose audit must pass as well."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evidence.lines import records
from orchestration.commands.ledger import METRICS, faults
from orchestration.loop.journal import JOURNAL, fates


@dataclass
class Checked:
    """problems: what is wrong, empty if nothing is. lost: groups that are missing or, in a run that has ended, neither
    trained nor rejected. doubled: groups that entered more than one step of the surviving lineage. worst: the largest
    staleness."""

    problems: list[str] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    doubled: list[int] = field(default_factory=list)
    worst: int = 0


def check(run_dir: Path, finished: bool) -> Checked:
    """`finished`: whether the run did all its steps; it may run otherwise."""
    if not (run_dir / JOURNAL).exists():
        return Checked([f"{run_dir}: no {JOURNAL}"])
    lost, doubled = lost_and_doubled(list(records(run_dir / JOURNAL)), finished)
    checked = Checked(lost=lost, doubled=doubled)
    checked.problems += faults(run_dir, fates(records(run_dir / JOURNAL)))
    metrics = list(records(run_dir / METRICS)) if (run_dir / METRICS).exists() else []
    for line in metrics:
        checked.worst = max(checked.worst, line["staleness/max"])
        if line["staleness/max"] > line["staleness/bound"]:
            checked.problems.append(
                f"step {line['step']}: staleness {line['staleness/max']} above {line['staleness/bound']}"
            )
    checked.problems += [
        f"groups {groups} are {what}" for what, groups in (("lost", lost), ("doubled", doubled)) if groups
    ]
    return checked


def lost_and_doubled(lines: list[dict[str, Any]], finished: bool) -> tuple[list[int], list[int]]:
    """Replays a journal by cutting out of it what each restart made void."""
    surviving: list[dict[str, Any]] = []
    for line in lines:
        if "group" not in line and "lineage" in line:
            kept = [n for n, earlier in enumerate(surviving) if earlier.get("checkpoint") == line["step"]]
            surviving = surviving[: kept[-1] + 1 if kept else 0]
        else:
            surviving.append(line)
    moves = [line for line in surviving if "group" in line]
    ends = Counter(line["group"] for line in moves if line["state"] in ("trained", "rejected"))
    groups = {line["group"] for line in moves}
    lost = sorted(set(range(max(groups, default=-1) + 1)) - groups)
    if finished:
        lost += sorted(groups - set(ends))
    return lost, sorted(group for group, times in ends.items() if times > 1)
