"""The files of held-out evaluations in a run directory: one JSON line for each clip, written and read back.

Guarantee: what is read equals what was written, NaN included.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.comparison import Evaluation, as_evaluation
from evaluation.heldout import ClipRecord
from evidence.files import write_text
from evidence.plain import dumps

DRAWS = ("greedy", "sampled")


def recorded_evaluation(run_dir: Path, when: str) -> list[Evaluation]:
    """What `evaluate_policy` recorded; empty if it recorded nothing, since there are no held-out samples."""
    paths = [run_dir / records_name(when, name) for name in DRAWS]
    return [as_evaluation(read_records(path)) for path in paths if path.exists()]


def records_name(when: str, draw: str) -> str:
    return f"heldout_{when}_{draw}.jsonl"


def read_records(path: Path) -> list[ClipRecord]:
    """The records of a file that `write_records` wrote; a value that JSON cannot hold is NaN."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        data = json.loads(line)
        data["clip"] = data.pop("id")
        records.append(ClipRecord(**{key: _known(value) for key, value in data.items()}))
    return records


def _known(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_known, value))
    return np.nan if value is None else value


def write_records(path: Path, records: Sequence[ClipRecord]) -> None:
    """One JSON line per clip: the completion, as `ser score` reads it, its reward, and measures that no reward saw."""
    write_text(path, "".join(f"{line}\n" for line in record_lines(records)))


def record_lines(records: Sequence[ClipRecord]) -> list[str]:
    return [dumps({"id": clip.pop("clip"), **clip}) for clip in map(asdict, records)]
