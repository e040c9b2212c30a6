"""Times, intervals and boxes in an answer's text, and the cited frames and the confidence of RLER's format.

Guarantees: no function raises, whatever the text, and each takes time linear in the text's length. Numbers and times
are read by the rules of `evidence.numbers`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from evidence.grammar import elements, read_box
from evidence.numbers import Interval, plain_intervals, read_time
from evidence.types import Box

KEYFRAMES = re.compile(r"</?keyframes>")
CONFIDENCE = re.compile(r"<confidence>\s*(1(?:\.0{0,20})?|0?\.[0-9]{1,20}|0)\s*</confidence>")


class Times(NamedTuple):
    """Contents of time tags in order, in seconds: single moments, and intervals, reversed ones included."""

    moments: list[float]
    intervals: list[Interval]


class CitedFrames(NamedTuple):
    """The shown frames that a completion cites, by index from 0, each once and in order; and the number of invalid
    citations: not a whole number, or not the index of a shown frame."""

    valid: tuple[int, ...]
    invalid: int


def times(text: str) -> Times:
    """Every readable time tag of `text`."""
    tagged = Times([], [])
    for name, content, _, _ in elements(text):
        if name != "t":
            continue
        time, until, _ = read_time(content)
        if time is not None and until is not None:
            tagged.intervals.append((time, until))
        elif time is not None:
            tagged.moments.append(time)
    return tagged


def intervals(text: str) -> list[Interval]:
    """Every interval of `text` in order, in seconds, reversed ones included: those in time tags or, in a text without
    any time tag, those in plain numbers."""
    return times(text).intervals if "<t>" in text else plain_intervals(text)


def boxes(text: str) -> list[Box]:
    """Every readable box tag of `text` in order, in the coordinates that were written."""
    tagged = [read_box(content).box for name, content, _, _ in elements(text) if name == "box"]
    return [box for box in tagged if box is not None]


def cited_frames(text: str, shown: int) -> CitedFrames | None:
    """The citations, among `shown` frames, in the first closed `<keyframes>[3, 5]</keyframes>` of `text`; None if
    there is no such tag.

    A frame cited twice counts once and is not invalid. The brackets are optional; an empty list cites nothing.
    """
    tags = KEYFRAMES.finditer(text)
    start = next((tag.end() for tag in tags if tag[0] == "<keyframes>"), None)
    end = next((tag.start() for tag in tags if tag[0] == "</keyframes>"), None)
    if start is None or end is None:
        return None
    listed = text[start:end].strip().removeprefix("[").removesuffix("]")
    items = [item.strip() for item in listed.split(",")] if listed.strip() else []
    indices = [int(item) for item in items if item.isascii() and item.isdigit() and len(item) <= 9]
    valid = [index for index in indices if index < shown]
    return CitedFrames(tuple(dict.fromkeys(valid)), len(items) - len(valid))


def confidence(text: str) -> float | None:
    """The first readable `<confidence>0.8</confidence>` of `text`, from 0 to 1; None if there is none. The tag is our
    reading: RLER's sources say that a confidence is reported, but not how."""
    match = CONFIDENCE.search(text)
    return float(match[1]) if match else None
