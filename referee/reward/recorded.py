"""Completions that some policy wrote, out of a file with one JSON object a line.

Guarantee: every line is read, or refused by a BadInput that names it and says what would be right.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from evidence.errors import BadInput

NEEDED = ("id", "text")
MOST = 1e9  # pixels or seconds: beyond it, or NaN, nobody measured it


@dataclass(frozen=True)
class Recorded:
    """One line of a completions file.

    frame_size: (width, height) of the frames shown, (0, 0) where the line does not say. frame_times: their seconds.
    tokens: of the completion, None where the line does not say. shuffled: drawn on frames in another order: never
    scored itself, but compared with.
    """

    where: str
    id: str
    text: str
    frame_size: tuple[int, int] = (0, 0)
    frame_times: tuple[float, ...] = ()
    tokens: int | None = None
    shuffled: bool = False


def read_completions(path: Path) -> list[Recorded]:
    """The lines of a completions file. Raises BadInput naming the line and what would be right."""
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); give a file with one JSON object a line") from None
    found = [_recorded(f"{path}: line {n}", line) for n, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise BadInput(f"{path}: holds no completion; one is a line like {{'id': …, 'text': …}}")
    return found


def _recorded(where: str, line: str) -> Recorded:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: not JSON ({error})") from None
    if not isinstance(row, dict):
        raise BadInput(f"{where}: has to be a JSON object, not {type(row).__name__}")
    if missing := [key for key in NEEDED if row.get(key) is None]:
        raise BadInput(f"{where}: has no {missing[0]}; a completion is {{'id': …, 'text': …}}")
    text = _typed(where, row, "text", str, "")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadInput(f"{where}: text holds half a character, a surrogate without its other half") from None
    size, times = _numbers(where, row, "frame_size"), _numbers(where, row, "frame_times")
    if size and (len(size) != 2 or not all(side >= 1 and side.is_integer() for side in size)):
        raise BadInput(f"{where}: frame_size = {row['frame_size']}: it has to be [width, height] in whole pixels")
    if any(a >= b for a, b in pairwise(times)) or any(time < 0 for time in times):
        raise BadInput(f"{where}: frame_times have to be 0 or more, and grow from one to the next")
    tokens = _typed(where, row, "tokens", int, None)
    if tokens is not None and tokens < 0:
        raise BadInput(f"{where}: tokens = {tokens}: it has to be 0 or more")
    return Recorded(
        where=where,
        id=str(row["id"]),
        text=text,
        frame_size=(int(size[0]), int(size[1])) if size else (0, 0),
        frame_times=times,
        tokens=tokens,
        shuffled=_typed(where, row, "shuffled", bool, False),
    )


def _numbers(where: str, row: dict[str, Any], key: str) -> tuple[float, ...]:
    """() where the line does not say."""
    listed = row.get(key)
    if listed is None:
        return ()
    if not isinstance(listed, list) or not all(type(n) in (int, float) and abs(n) <= MOST for n in listed):
        raise BadInput(f"{where}: {key} = {listed!r:.60}: it has to be a list of finite numbers")
    return tuple(map(float, listed))


def _typed(where: str, row: dict[str, Any], key: str, kind: type, default: Any) -> Any:
    value = row.get(key, default)
    if value is not default and not (isinstance(value, kind) and (kind is bool or not isinstance(value, bool))):
        raise BadInput(f"{where}: {key} = {value!r:.60}: it has to be of type {kind.__name__}")
    return value
