"""Files of benchmarks as their authors publish them: rows of JSON, JSON lines, CSV or TSV, compressed by gzip or not.

Guarantees: a row that cannot be read is counted as a fault and left out; a file that holds no rows at all raises a
BadInput that names it and what would be right. Pure, apart from reading the file.
"""

from __future__ import annotations

import ast
import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from evaluation.faults import Faults
from evidence.errors import BadInput
from rollout.dataset.row import Row

SUFFIXES = (".json", ".jsonl", ".csv", ".tsv")
GZIP = b"\x1f\x8b"
PARQUET = b"PAR1"
TABLES = {".csv": ",", ".tsv": "\t"}
LONGEST_CELL = 2**24  # characters; a cell may hold a whole transcript


class PlacedRow(NamedTuple):
    """A row and where it stands. key: its name, if the file is one JSON object that maps names to rows."""

    file: Path
    position: int
    values: Any
    key: str | None = None

    @property
    def place(self) -> str:
        return (
            f"{self.file.name}: sample {self.position}" if self.key is None else f"{self.file.name}: {self.key!r:.60}"
        )


def data_files(path: Path) -> list[Path]:
    """The file, or all files of a folder and of the folders in it that may hold rows, by name. Raises BadInput."""
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.rglob("*") if _suffix(file) in SUFFIXES and file.is_file())
    if not files:
        raise BadInput(f"{path}: holds no {', '.join(SUFFIXES)} file; name the folder of the benchmark's annotation")
    return files


def rows(path: Path, faults: Faults) -> Iterator[PlacedRow]:
    """The rows of a file, which are not checked. Lines that are not JSON are counted in `faults`. Raises BadInput."""
    text = _text(path)
    if _suffix(path) in TABLES:
        csv.field_size_limit(LONGEST_CELL)
        table = csv.DictReader(text.splitlines(keepends=True), delimiter=TABLES[_suffix(path)])
        yield from (PlacedRow(path, n, values) for n, values in enumerate(table))
        return
    if text.lstrip()[:1] not in ("[", "{"):
        raise BadInput(f"{path}: holds no JSON; give a list of objects, or one object a line")
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("["):
            raise BadInput(f"{path}: not JSON ({error}); give a list of objects, or one object a line") from None
        yield from _lines(path, text, faults)
        return
    if isinstance(whole, list):
        yield from (PlacedRow(path, n, values) for n, values in enumerate(whole))
    elif whole and all(isinstance(value, dict) for value in whole.values()):
        yield from (PlacedRow(path, n, values, key) for n, (key, values) in enumerate(whole.items()))
    else:
        yield PlacedRow(path, 0, whole)


def _lines(path: Path, text: str, faults: Faults) -> Iterator[PlacedRow]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield PlacedRow(path, number - 1, json.loads(line))
        except (ValueError, RecursionError):
            faults.add("a line that is not JSON is left out", f"{path.name}: line {number}")


def _suffix(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data.startswith(GZIP) else data
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"{path}: cannot be read ({error}); name a readable file") from None
    if data.startswith(PARQUET):
        raise BadInput(f"{path}: is a Parquet file; write it as JSON lines (docs/evaluation.md)")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    if not text.strip():
        raise BadInput(f"{path}: is empty; it needs at least one sample")
    return text


def row_of(placed: PlacedRow) -> Row:
    """Typed access to a row's keys. Raises ValueError for a row that is no object. Media paths are not checked: nothing
    is opened here."""
    if not isinstance(placed.values, dict):
        raise ValueError(f"a row must be an object, not {type(placed.values).__name__}")
    return Row(placed.values, placed.position, Path("/"))


def texts(value: Any, key: str) -> tuple[str, ...]:
    """A list of texts, which tables write as text that spells one. Raises KeyError or ValueError."""
    if value is None:
        raise KeyError(key)
    listed = value
    if isinstance(value, str):
        try:
            listed = ast.literal_eval(value)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            listed = None
    if not isinstance(listed, list | tuple) or not listed:
        raise ValueError(f"the key '{key}' must be a list of texts, not {value!r:.40}")
    return tuple(str(item) for item in listed)
