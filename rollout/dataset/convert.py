"""Converts a dataset to another format without loss: each written row is read back and compared with its sample.

Guarantees: the target is written whole or not at all; an existing file is never replaced; media stay where they are,
with paths relative to the target's media root.
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
from evidence.files import FULL, whole_file
from evidence.types import Sample
from rollout.dataset.formats import Format, named
from rollout.dataset.read import DatasetFile, describe
from rollout.dataset.row import Row, resolved


@dataclass(frozen=True)
class Converted:
    """samples: how many were written. unread: keys of the source that a Sample cannot hold, with their number of
    rows."""

    samples: int
    unread: dict[str, int]


def convert(source: DatasetFile, target: Path, to: str) -> Converted:
    """Write the samples of `source` to `target` in the format named `to`: one object per line for .jsonl, a list for
    .json. Raises BadInput, and writes nothing, if a sample has fields that the format cannot hold."""
    form = named(to)
    if target.suffix not in (".json", ".jsonl"):
        raise BadInput(f"{target}: must end in .jsonl for one object per line, or in .json for a list")
    if os.path.lexists(target):
        raise BadInput(f"{target}: exists already; name a new file or remove it")
    if not os.path.isdir(target.parent):
        raise BadInput(f"{target}: the folder {target.parent} does not exist; make it first")
    try:
        return Converted(_write(_rows(source, form, target), target), dict(source.unread))
    except OSError as error:
        if error.errno in FULL:  # not the name's fault
            raise
        reason = error.strerror or type(error).__name__
        raise BadInput(f"{target}: cannot be written ({reason}); name a file that can be") from None


def _write(rows: Iterator[dict[str, Any]], target: Path) -> int:
    """Write the rows to `target` and return their number. Raises OSError if the target cannot be written."""
    before, between, after = ("", "\n", "\n") if target.suffix == ".jsonl" else ("[\n", ",\n", "\n]\n")
    count = 0
    with whole_file(target, new=True) as part, part.open("w", encoding="utf-8") as file:
        file.write(before)
        for count, row in enumerate(rows, 1):
            file.write(between * (count > 1) + json.dumps(row, ensure_ascii=False))
        file.write(after)
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
            lost_fields = lost(sample, form.read(Row(json.loads(json.dumps(row)), index, root)))
        except (KeyError, ValueError, OverflowError) as error:
            raise BadInput(
                f"{source.path}: sample {sample.id} cannot be written as {form.name}: {describe(error)}"
            ) from None
        if lost_fields:
            raise BadInput(
                f"{source.path}: sample {sample.id}: {form.name} cannot hold its {', '.join(lost_fields)}; "
                "convert to ser, which holds everything"
            )
        yield row


def lost(sample: Sample, back: Sample) -> list[str]:
    """The fields in which two samples differ by more than rounding."""
    return [f.name for f in fields(Sample) if not _same(getattr(sample, f.name), getattr(back, f.name))]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return bool(a == b)
