"""Reads a dataset file: every row becomes a Sample, or a BadInput names the file, the place and the remedy.

A file is a JSON list, or one JSON object per line; either may be compressed by gzip. Lines are read lazily; a list is
parsed as a whole. Media are not opened.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from evidence.errors import BadInput
from evidence.types import Sample
from rollout.dataset.formats import detect, named
from rollout.dataset.row import Row, resolved

FIRST_ROWS = 20  # rows from whose keys the format is detected: a key may be null in some
GZIP = b"\x1f\x8b"
# The first bytes of files that hold no JSON text, though they may be named like it.
OTHER_KINDS = {
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"PK\x03\x04": "a zip archive",
    b"\x28\xb5\x2f\xfd": "compressed by Zstandard",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
}
Placed = tuple[str, dict[str, Any]]  # the row's place in the file, for messages, and the row


class DatasetFile:
    """An open dataset file: its format and media root, and its samples in order, which can be iterated over once.

    format: None detects it. media_root: folder below which all media are; None is the format's default. follow_links:
        whether media may be links to files elsewhere.
    unread: for each key that the format does not read, the number of rows with it among the rows read so far.
    Raises BadInput for anything that is not a dataset, on construction or during iteration.
    """

    def __init__(
        self,
        path: str | Path,
        format: str | None = None,
        media_root: str | Path | None = None,
        follow_links: bool = True,
    ):
        self.path, self.follow_links = Path(path), follow_links
        rows = _rows(self.path)
        first = list(islice(rows, FIRST_ROWS))
        if not first:
            raise BadInput(f"{path}: the dataset is empty; it needs at least one sample")
        try:
            self.format = named(format) if format else detect(row for _, row in first)
            root = Path(media_root or self.path.parent / self.format.media_folder)
            self.media_root = resolved(root, "the media root")
        except BadInput as error:
            raise BadInput(f"{path}: {describe(error)}") from None
        self.unread: Counter[str] = Counter()
        self._rows = chain(first, rows)

    def __iter__(self) -> Iterator[Sample]:
        for index, (where, values) in enumerate(self._rows):
            row = Row(values, index, self.media_root, self.follow_links)
            try:
                sample = self.format.read(row)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise BadInput(f"{self.path}: {where}: {describe(error)}") from None
            self.unread.update(row.unread)
            yield sample


def read_dataset(
    path: str | Path, format: str | None = None, media_root: str | Path | None = None, follow_links: bool = True
) -> list[Sample]:
    """All samples of a dataset file, in order. Raises BadInput for anything that is not a dataset."""
    return list(DatasetFile(path, format, media_root, follow_links))


def describe(error: Exception) -> str:
    """The message of an error that a format's reader or writer raised, in one line even if it quotes several."""
    message = f"the key {error} is missing or null" if isinstance(error, KeyError) else str(error)
    return " ".join(message.split())


def _rows(path: Path) -> Iterator[Placed]:
    if os.path.isdir(path):
        inside = ", ".join(sorted(p.name for p in path.glob("*.json*"))[:5]) or "none"
        raise BadInput(f"{path}: is a folder; name a dataset file, it contains: {inside}")
    if not os.path.isfile(path):  # unlike Path.is_file, False for a name that is too long
        near = sorted(p.name for p in path.parent.glob("*.json*")) if os.path.isdir(path.parent) else []
        hint = f"; in that folder: {', '.join(near[:5])}" if near else "; `ser data make-shapes` makes one"
        raise BadInput(f"{path}: no such dataset file{hint}")
    try:
        for where, row in _list(path) if _holds_list(path) else _lines(path):
            if not isinstance(row, dict):
                raise BadInput(f"{path}: {where}: a sample must be a JSON object, not {type(row).__name__}")
            yield where, row
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadInput(f"{path}: its gzip data are damaged or cut short ({error}); copy the file again") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); name a readable file") from None


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    """The file's text as bytes, decompressed. Raises BadInput for other kinds of files, and OSError."""
    with path.open("rb") as file:
        start = file.read(8)
    for mark, kind in OTHER_KINDS.items():
        if start.startswith(mark):
            raise BadInput(
                f"{path}: is {kind}; write it as JSON, one object per line, which may be compressed by gzip (.jsonl.gz)"
            )
    return gzip.open(path) if start.startswith(GZIP) else path.open("rb")


def _holds_list(path: Path) -> bool:
    with _open(path) as file:
        stripped = (line.strip(b"\xef\xbb\xbf \t\r\n") for line in file)
        return next(filter(None, stripped), b"").startswith(b"[")


def _list(path: Path) -> Iterator[tuple[str, Any]]:
    with _open(path) as file:
        rows = _json(_text(file.read(), path, ""), path, 1)
    yield from ((f"sample {number}", row) for number, row in enumerate(rows, 1))


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    with _open(path) as file:  # JSON strings may contain line separators other than the newline
        for number, line in enumerate(file, 1):
            text = _text(line, path, f"line {number}: ")
            if text.strip():
                yield f"line {number}", _json(text, path, number)


def _text(data: bytes, path: Path, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: {where}not UTF-8 text ({error.reason} at byte {error.start})") from None


def _json(text: str, path: Path, line: int) -> Any:
    """Parse `text`, which begins at `line` of the file. Raises BadInput."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(
            f"{path}: line {line + error.lineno - 1}: not JSON ({error.msg}); a dataset is a JSON list, or one JSON "
            "object per line"
        ) from None
    except (ValueError, RecursionError) as error:  # a number with too many digits, or brackets nested too deeply
        raise BadInput(f"{path}: line {line}: JSON that cannot be read ({error})") from None
