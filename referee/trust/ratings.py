"""Reader of human ratings of claims from a CSV file (docs/calibration.md).

Guarantee: every line is either read or refused by a BadInput that names it.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from evidence.errors import BadInput
from evidence.types import Box

COLUMNS = ("sample", "object", "box", "time", "rater", "relevance", "localization")
LEVELS = ("0", "1", "2")


@dataclass(frozen=True)
class RatedClaim:
    """One claim and its `ratings`: rater -> (relevance, localization), 0-2 each. `box` is normalised to 0-1, `time` is
    in seconds."""

    sample: str
    phrase: str
    box: Box
    time: float
    ratings: dict[str, tuple[int, int]]


def read_ratings(path: Path) -> list[RatedClaim]:
    """The rated claims of a CSV file, in the order of their first appearance. Raises BadInput."""
    claims: dict[tuple[str, str, Box, float], dict[str, tuple[int, int]]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
            if missing:
                raise BadInput(f"{path}: no column {missing[0]!r}; the first line must name {', '.join(COLUMNS)}")
            for row in rows:
                where = f"{path}, line {rows.line_num}"
                if any(row[name] is None for name in COLUMNS):
                    raise BadInput(f"{where}: fewer fields than columns")
                claim = row["sample"], row["object"], _box(row["box"], where), _number(row["time"], "time", where)
                rater, ratings = row["rater"], (_level(row, "relevance", where), _level(row, "localization", where))
                if claims.setdefault(claim, {}).setdefault(rater, ratings) is not ratings:
                    raise BadInput(f"{where}: rater {rater!r} has rated this claim before; keep one of the two lines")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: cannot be read ({error}); give a CSV file in UTF-8") from None
    if not claims:
        raise BadInput(f"{path}: no ratings below its first line")
    return [RatedClaim(*claim, ratings) for claim, ratings in claims.items()]


def _box(text: str, where: str) -> Box:
    values = [_number(part, "box", where) for part in text.split()]
    if len(values) != 4 or not (0 <= values[0] < values[2] <= 1 and 0 <= values[1] < values[3] <= 1):
        raise BadInput(f"{where}: box = {text!r}: must be x1 y1 x2 y2 between 0 and 1, with x1 < x2 and y1 < y2")
    return values[0], values[1], values[2], values[3]


def _number(text: str, name: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadInput(f"{where}: {name} = {text!r}: {text!r} is not a number")
    return value


def _level(row: dict[str, str], name: str, where: str) -> int:
    if row[name].strip() not in LEVELS:
        raise BadInput(f"{where}: {name} = {row[name]!r}: must be 0, 1 or 2")
    return int(row[name])
