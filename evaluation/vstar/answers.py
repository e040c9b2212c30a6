"""How V-STaR's official scripts read answers: from completions into a result file, and from a result file. Pure.

These rules belong to the benchmark and are kept as they are, odd ones included; `evidence.numbers` is the general
reading of numbers. Reading a result file differs from the scripts in one point: a number that is NaN or infinite is
unparsable. The official script compares NaN in such a way that [NaN, NaN] earns a temporal IoU of 1.
"""

from __future__ import annotations

import ast
import json
import math
import re
from typing import Any

from evidence.numbers import Interval

NUMBER = re.compile(r"\b\d+(?:\.\d+)?\b")
CLOCK = re.compile(r"\d{1,18}:\d{1,18}")
ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
FENCED = re.compile(r"```json\s*\n(\[.*?\]|\{.*?\})\s*\n```", re.DOTALL)
BRACKETED = re.compile(r"\[.*\]|\{.*\}", re.DOTALL)
LONGEST_LITERAL = 1000  # characters of an interval that is written as text


def tagged_answer(text: str) -> str:
    """The text between the first answer tags, or the whole text without them."""
    match = ANSWER.search(text)
    return match[1].strip() if match else text


def times_in(text: str) -> list[float]:
    """[start, end] if the text holds exactly two word-bounded numbers; else empty. A sign is not part of a number."""
    numbers = NUMBER.findall(text)
    return [float(number) for number in numbers] if len(numbers) == 2 else []


def times_in_answer(text: str) -> list[float]:
    """Open-o3-Video's reading: `times_in` of the answer, with each m:ss as its seconds."""
    answer = tagged_answer(text)
    for clock in CLOCK.findall(answer):
        minutes, seconds = clock.split(":")
        answer = answer.replace(clock, f" {int(minutes) * 60 + int(seconds)} ")
    return times_in(answer)


def boxes_in(text: str) -> Any:
    """The boxes of a completion as a result file holds them: {second as text: box or boxes}, a list if only brackets
    were missing, or None. The first fenced JSON counts, else all from the first bracket to the last."""
    match = FENCED.search(text) or BRACKETED.search(text)
    if match is None:
        return None
    written = match[match.lastindex or 0].strip().replace("'", '"')
    try:
        return _by_second(json.loads(written))
    except (ValueError, TypeError, LookupError, RecursionError):
        pass
    try:
        repaired = json.loads(_balanced(written))
    except (ValueError, RecursionError):
        return None
    return repaired if isinstance(repaired, list | dict) else None


def _by_second(boxes: Any) -> Any:
    """A list of objects as one object, and a list of [second, box] pairs as an object."""
    if isinstance(boxes, list) and all(isinstance(item, dict) for item in boxes):
        return {second: box for item in boxes for second, box in item.items()}
    if isinstance(boxes, list):
        return {str(item[0]): item[1] for item in boxes}
    return boxes if isinstance(boxes, dict) else None


def _balanced(text: str) -> str:
    """The text with the brackets of each kind that it lacks, at its end or at its start."""
    for opening, closing in ("[]", "{}"):
        lacking = text.count(opening) - text.count(closing)
        text = opening * -lacking + text + closing * lacking
    return text


def interval_of(value: Any) -> tuple[Interval | None, str | None]:
    """A time answer of a result file, and why it is unparsable; both None for a missing one."""
    if not value:
        return None, None
    if isinstance(value, str):
        value = _literal(value)
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None, "a time that is not [start, end]"
    start, end = value
    if not (is_number(start) and is_number(end)):
        return None, "a time whose ends are not both numbers"
    return (start, end), None


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a finite number. Text is none, whatever it says."""
    if type(value) is int:
        return abs(value) < 1e300
    return type(value) is float and math.isfinite(value)


def _literal(text: str) -> Any:
    """The list that a text spells; None for any other text."""
    try:
        return ast.literal_eval(text) if len(text) <= LONGEST_LITERAL else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
