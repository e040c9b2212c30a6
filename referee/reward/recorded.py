"""Reader of recorded completions: a file with one JSON object per line.

Guarantee: every line is either read or refused by a BadInput that names the line and the remedy.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from evidence.errors import BadInput

REQUIRED = ("id", "text")
HIGHEST = 1e9  # pixels or seconds: a larger number, or NaN, cannot be a measurement


@dataclass(frozen=True)
class RecordedCompletion:
    """One line of a completions file.

    where: file and line number, for messages.
    frame_size: (width, height) of the frames shown, (0, 0) if not given. frame_times: their seconds, () if not given.
    tokens: length of the completion, None if not given.
    shuffled: sampled on frames in shuffled order: used for comparison and never scored itself.
    """

    where: str
    id: str
    text: str
    frame_size: tuple[int, int] = (0, 0)
    frame_times: tuple[float, ...] = ()
    tokens: int | None = None
    shuffled: bool = False


def read_completions(path: Path) -> list[RecordedCompletion]:
    """The lines of a completions file. Raises BadInput that names the line and the remedy."""
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); give a file with one JSON object a line") from None
    completions = [_recorded(f"{path}: line {n}", line) for n, line in enumerate(lines, 1) if line.strip()]
    if not completions:
        raise BadInput(f"{path}: holds no completion; write each as a line like {{'id': …, 'text': …}}")
    return completions


def _recorded(where: str, line: str) -> RecordedCompletion:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: not JSON ({error})") from None
    if not isinstance(row, dict):
        raise BadInput(f"{where}: must be a JSON object, not {type(row).__name__}")
    if missing := [key for key in REQUIRED if row.get(key) is None]:
        raise BadInput(f"{where}: has no {missing[0]}; a completion is {{'id': …, 'text': …}}")
    text = _typed(where, row, "text", str, "")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadInput(f"{where}: text contains a lone surrogate, half of a character; write it in full") from None
    size, times = _numbers(where, row, "frame_size"), _numbers(where, row, "frame_times")
    if size and (len(size) != 2 or not all(side >= 1 and side.is_integer() for side in size)):
        raise BadInput(f"{where}: frame_size = {row['frame_size']}: must be [width, height] in whole pixels")
    if any(a >= b for a, b in pairwise(times)) or any(time < 0 for time in times):
        raise BadInput(f"{where}: frame_times must be 0 or more, and increase from one to the next")
    tokens = _typed(where, row, "tokens", int, None)
    if tokens is not None and tokens < 0:
        raise BadInput(f"{where}: tokens = {tokens}: must be 0 or more")
    return RecordedCompletion(
        where=where,
        id=str(row["id"]),
        text=text,
        frame_size=(int(size[0]), int(size[1])) if size else (0, 0),
        frame_times=times,
        tokens=tokens,
        shuffled=_typed(where, row, "shuffled", bool, False),
    )


def _numbers(where: str, row: dict[str, Any], key: str) -> tuple[float, ...]:
    """The list of numbers under `key`; () if it is missing."""
    listed = row.get(key)
    if listed is None:
        return ()
    if not isinstance(listed, list) or not all(type(n) in (int, float) and abs(n) <= HIGHEST for n in listed):
        raise BadInput(f"{where}: {key} = {listed!r:.60}: must be a list of finite numbers")
    return tuple(map(float, listed))


def _typed(where: str, row: dict[str, Any], key: str, kind: type, default: Any) -> Any:
    value = row.get(key, default)
    if value is not default and not (isinstance(value, kind) and (kind is bool or not isinstance(value, bool))):
        raise BadInput(f"{where}: {key} = {value!r:.60}: must be of type {kind.__name__}")
    return value
