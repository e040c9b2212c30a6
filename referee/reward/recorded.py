"""Reader of recorded completions: a file with one JSON object per line.

Guarantee: every line is either read or refused by a BadInput that names the line and the remedy.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from evidence.errors import BadInput

REQUIRED = ("id", "text")
KEYS = (*REQUIRED, "frame_size", "frame_times", "tokens", "shuffled")
# Keys by which a line of a run's own files is known: samples.jsonl and heldout_*.jsonl. Such a line may have more keys.
OF_SAMPLES = {"step", "group", "sample"}
OF_HELDOUT = {"id", "valid_claims"}
HIGHEST = 1e9  # pixels or seconds: a larger number, or NaN, cannot be a measurement


@dataclass(frozen=True)
class RecordedCompletion:
    """One line of a completions file.

    where: file and line number, for messages.
    frame_size: (width, height) of the frames shown, (0, 0) if not given. frame_times: their seconds, () if not given.
    tokens: length of the completion, None if not given.
    shuffled: sampled on frames in shuffled order: used for comparison and never scored itself.
    group: number of the group of a run that it was drawn in, None if unknown: completions of a sample are one group.
    """

    where: str
    id: str
    text: str
    frame_size: tuple[int, int] = (0, 0)
    frame_times: tuple[float, ...] = ()
    tokens: int | None = None
    shuffled: bool = False
    group: int | None = None

    @property
    def group_name(self) -> str:
        """A name that only the completions of the same group share."""
        return self.id if self.group is None else f"{self.id} in group {self.group}"


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
    if row.keys() >= OF_SAMPLES:
        row["id"] = row["sample"]
    elif not row.keys() >= OF_HELDOUT:
        _require_known(where, row)
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
        group=_typed(where, row, "group", int, None),
    )


def _require_known(where: str, row: dict[str, Any]) -> None:
    for key in row:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1, cutoff=0)[0]
            raise BadInput(f"{where}: unknown key {key!r:.60}; the nearest is {near}, all are: {', '.join(KEYS)}")


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
