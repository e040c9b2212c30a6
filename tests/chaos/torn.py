"""Damages the newest checkpoint of a run, as a crash of the machine can."""

from __future__ import annotations

from pathlib import Path

from learner.checkpoints import checkpoints

RECORD_REMOVED = "its record is removed"


def tear(run_dir: Path, how: str) -> bool:
    """False if there is no checkpoint."""
    records = checkpoints(run_dir / "checkpoints")
    if not records:
        return False
    if how == RECORD_REMOVED:
        records[-1].unlink()
        return True
    shards = [path for path in records[-1].with_suffix("").rglob("*") if path.is_file()]
    largest = max(shards, key=lambda path: path.stat().st_size)
    with largest.open("rb+") as shard:
        shard.truncate(largest.stat().st_size // 2)
    return True
