"""From one format to another, without loss: each row written is read back, and what has not come through is named.

Guarantees: the target appears whole or not at all; a file that is there is never replaced; its media paths are those of
the source, relative to the target's media root.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from evidence.errors import BadInput
from evidence.types import Sample
from rollout.dataset.format import Format
from rollout.dataset.formats import named
from rollout.dataset.read import DatasetFile, describe
from rollout.dataset.row import Row, resolved


@dataclass(frozen=True)
class Converted:
    """`samples` written. `unread`: keys of the source that no Sample holds, with the number of rows that had them."""

    samples: int
    unread: dict[str, int]


def convert(source: DatasetFile, target: Path, to: str) -> Converted:
    """Write the samples of `source` to `target` in the format named `to`: one object a line if it is called .jsonl, a
    list if .json. Raises BadInput, and writes nothing, if a sample has what the format has no place for."""
    form = named(to)
    if target.suffix not in (".json", ".jsonl"):
        raise BadInput(f"{target}: call it .jsonl for one object a line or .json for a list")
    if os.path.lexists(target):
        raise BadInput(f"{target}: exists already; name a new file or remove it")
    if not os.path.isdir(target.parent):
        raise BadInput(f"{target}: the folder {target.parent} does not exist; make it first")
    try:
        return Converted(_write(_rows(source, form, target), target), dict(source.unread))
    except OSError as error:
        said = error.strerror or type(error).__name__
        raise BadInput(f"{target}: cannot be written ({said}); name a file that can be") from None


def _write(rows: Iterator[dict[str, Any]], target: Path) -> int:
    """How many there were. Raises OSError where the target cannot be written."""
    part, count = target.with_name(target.name + ".part"), 0
    before, between, after = ("", "\n", "\n") if target.suffix == ".jsonl" else ("[\n", ",\n", "\n]\n")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(before)
            for count, row in enumerate(rows, 1):
                file.write(between * (count > 1) + json.dumps(row, ensure_ascii=False))
            file.write(after)
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)
    return count


def _rows(source: DatasetFile, form: Format, target: Path) -> Iterator[dict[str, Any]]:
    root = resolved(target.parent / form.media_folder, "the media root")

    def relative(media: str) -> str:
        if not Path(media).is_relative_to(root):
            raise ValueError(f"its media {media} is not below {root}; write the file to a folder above all media")
        return Path(media).relative_to(root).as_posix()

    for index, sample in enumerate(source):
        try:
            row = form.write(sample, relative)
            gone = lost(sample, form.read(Row(json.loads(json.dumps(row)), index, root)))
        except (KeyError, ValueError, OverflowError) as error:
            raise BadInput(
                f"{source.path}: sample {sample.id} cannot be written as {form.name}: {describe(error)}"
            ) from None
        if gone:
            raise BadInput(
                f"{source.path}: sample {sample.id}: {form.name} has no place for its {', '.join(gone)}; "
                "convert to ser, which holds everything"
            )
        yield row


def lost(sample: Sample, back: Sample) -> list[str]:
    """The fields in which the two differ by more than the rounding of a number."""
    return [f.name for f in fields(Sample) if not _same(getattr(sample, f.name), getattr(back, f.name))]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return bool(a == b)
