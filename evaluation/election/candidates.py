"""Candidate answers to one question, and the reader of a file of recorded ones.

Guarantee of the reader: every line is either read or refused by a BadInput that names the line and the remedy.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evidence.errors import BadInput

REQUIRED = ("id", "text")
# Optional keys of a line, which are also the inputs that a method may need.
INPUTS = ("frames", "confidence", "crop_scores", "logprobs")
KEYS = (*REQUIRED, *INPUTS)
MOST_FRAMES = 100_000  # no prompt holds as many
CROP_SCORES = (0, 1, 2)
LEAST_LOGPROB = -1e9  # below it, and for -inf and NaN, a mean over tokens means nothing


@dataclass(frozen=True)
class Candidate:
    """One completion that answers a question. None stands for what is not recorded.

    frames: the number of frames shown, to which its citations refer by index from 0.
    confidence: as the model reports it, 0 to 1, where it is not part of the text.
    crop_scores: the relevance of each crop that its claims cut out, 0, 1 or 2; None for a reply that was not readable.
    logprobs: natural logarithms, one entry per token: of the drawn token alone, or a tuple with those of the K most
        likely tokens, K being the same for all tokens (the whole vocabulary, if all are recorded).
    where: file and line number, for messages.
    """

    text: str
    frames: int | None = None
    confidence: float | None = None
    crop_scores: tuple[int | None, ...] | None = None
    logprobs: tuple[float, ...] | tuple[tuple[float, ...], ...] | None = None
    where: str = "candidate"


def read_candidates(path: Path) -> dict[str, list[Candidate]]:
    """Candidates by their question's id, questions in the order of their first lines, candidates in file order.

    Raises BadInput that names the line and the remedy.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); give a file with one JSON object a line") from None
    questions: dict[str, list[Candidate]] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            question, candidate = _read_line(f"{path}: line {number}", line)
            questions.setdefault(question, []).append(candidate)
    if not questions:
        raise BadInput(f"{path}: holds no candidate; write each as a line like {{'id': …, 'text': …}}")
    return questions


def require_inputs(candidates: Iterable[Candidate], inputs: Sequence[str], method: str) -> None:
    """Raises BadInput that names the first candidate without one of the `inputs` of `method`."""
    for candidate in candidates:
        for name in inputs:
            if getattr(candidate, name) is None:
                raise BadInput(f"{candidate.where}: has no {name}, which the method {method} needs of each candidate")


def _read_line(where: str, line: str) -> tuple[str, Candidate]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: not JSON ({error})") from None
    if not isinstance(row, dict):
        raise BadInput(f"{where}: must be a JSON object, not {type(row).__name__}")
    for key in row:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1, cutoff=0)[0]
            raise BadInput(f"{where}: unknown key {key!r:.60}; the nearest is {near}, all are: {', '.join(KEYS)}")
    row = {key: value for key, value in row.items() if value is not None}
    if missing := [key for key in REQUIRED if key not in row]:
        raise BadInput(f"{where}: has no {missing[0]}; a candidate is {{'id': …, 'text': …}}")
    if not isinstance(row["id"], str | int) or isinstance(row["id"], bool):
        raise _refused(where, row, "id", "text or a whole number")
    for key in REQUIRED:
        _require_whole_text(where, key, str(row[key]))
    if not isinstance(row["text"], str):
        raise _refused(where, row, "text", "text")
    return str(row["id"]), Candidate(
        text=row["text"],
        frames=_frames(where, row),
        confidence=_confidence(where, row),
        crop_scores=_crop_scores(where, row),
        logprobs=_logprobs(where, row),
        where=where,
    )


def _require_whole_text(where: str, key: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadInput(f"{where}: {key} contains a lone surrogate, half of a character; write it in full") from None


def _frames(where: str, row: dict[str, Any]) -> int | None:
    frames = row.get("frames")
    if frames is None:
        return None
    if type(frames) not in (int, float) or not 1 <= frames <= MOST_FRAMES or frames != int(frames):
        raise _refused(where, row, "frames", f"the number of frames shown, 1 to {MOST_FRAMES:,}")
    return int(frames)


def _confidence(where: str, row: dict[str, Any]) -> float | None:
    value = row.get("confidence")
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise _refused(where, row, "confidence", "a number from 0 to 1")
    return float(value)


def _crop_scores(where: str, row: dict[str, Any]) -> tuple[int | None, ...] | None:
    scores = row.get("crop_scores")
    if scores is None:
        return None
    if not isinstance(scores, list) or not all(s is None or (type(s) is int and s in CROP_SCORES) for s in scores):
        raise _refused(where, row, "crop_scores", "a list with 0, 1, 2 or null for each crop")
    return tuple(scores)


def _logprobs(where: str, row: dict[str, Any]) -> tuple[Any, ...] | None:
    tokens = row.get("logprobs")
    if tokens is None:
        return None
    listed = isinstance(tokens, list) and bool(tokens)
    if listed and all(map(_is_logprob, tokens)):
        return tuple(map(float, tokens))
    if listed and all(isinstance(token, list) and token and all(map(_is_logprob, token)) for token in tokens):
        if len({len(token) for token in tokens}) > 1:
            raise BadInput(f"{where}: logprobs: tokens have lists of different lengths; record equally many for each")
        return tuple(tuple(map(float, token)) for token in tokens)
    wanted = "a list, not empty, of log-probabilities (finite, 0 or less), or of lists of them, one entry per token"
    raise _refused(where, row, "logprobs", wanted)


def _is_logprob(value: Any) -> bool:
    return type(value) in (int, float) and LEAST_LOGPROB <= value <= 0


def _refused(where: str, row: dict[str, Any], key: str, wanted: str) -> BadInput:
    return BadInput(f"{where}: {key} = {row[key]!r:.60}: must be {wanted}")
