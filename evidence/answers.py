"""What an answer says beside words: times, intervals and boxes, and the frames and confidence that RLER's form cites.

Guarantees: nothing here raises, whatever the text, and all of it takes time linear in the text's length. What can be
read as a number or a time is what `evidence.grammar` reads as one.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from evidence.grammar import CLOCK, DIGITS, elements, read_box, read_time, seconds
from evidence.types import Box

Interval = tuple[float, float]

# Times without tags: `12.0 to 20.5`, `12 s - 20.5 seconds`, `[12.0, 20.5]`, `(12.0, 20.5)`.
PLAIN = rf"({CLOCK}|{DIGITS})(?:\s*s(?:ec(?:ond)?s?)?\b)?"
PLAIN_INTERVAL = re.compile(rf"(?<![\w.-]){PLAIN}\s*(?:to|and|[-–,])\s*{PLAIN}")
KEYFRAMES = re.compile(r"</?keyframes>")
CONFIDENCE = re.compile(r"<confidence>\s*(1(?:\.0{0,20})?|0?\.[0-9]{1,20}|0)\s*</confidence>")


class Times(NamedTuple):
    """What time tags say, in order, in seconds: single moments, and intervals, reversed ones too."""

    moments: list[float]
    intervals: list[Interval]


class CitedFrames(NamedTuple):
    """The frames shown that a completion cites, by index from 0, each once and in order; and how many of its citations
    are none: no whole number, or no frame that was shown."""

    valid: tuple[int, ...]
    invalid: int


def times(text: str) -> Times:
    """Every readable time tag of `text`."""
    found = Times([], [])
    for name, content, _, _ in elements(text):
        if name != "t":
            continue
        time, until, _ = read_time(content)
        if time is not None and until is not None:
            found.intervals.append((time, until))
        elif time is not None:
            found.moments.append(time)
    return found


def intervals(text: str) -> list[Interval]:
    """Every interval of `text`, in order, in seconds, reversed ones too: those in tags or, where there is no time tag
    at all, those in plain numbers."""
    if "<t>" in text:
        return times(text).intervals
    return [(seconds(found[1]), seconds(found[2])) for found in PLAIN_INTERVAL.finditer(text)]


def boxes(text: str) -> list[Box]:
    """Every readable box tag of `text`, in order, in whatever space it was written in."""
    read = [read_box(content).box for name, content, _, _ in elements(text) if name == "box"]
    return [box for box in read if box is not None]


def cited_frames(text: str, shown: int) -> CitedFrames | None:
    """What the first closed `<keyframes>[3, 5]</keyframes>` of `text` cites of `shown` frames; None without one.

    A frame cited twice counts once, and is no error. The brackets may be left out; an empty list cites nothing.
    """
    tags = KEYFRAMES.finditer(text)
    start = next((tag.end() for tag in tags if tag[0] == "<keyframes>"), None)
    end = next((tag.start() for tag in tags if tag[0] == "</keyframes>"), None)
    if start is None or end is None:
        return None
    listed = text[start:end].strip().removeprefix("[").removesuffix("]")
    items = [item.strip() for item in listed.split(",")] if listed.strip() else []
    read = [int(item) for item in items if item.isascii() and item.isdigit() and len(item) <= 9]
    valid = [index for index in read if index < shown]
    return CitedFrames(tuple(dict.fromkeys(valid)), len(items) - len(valid))


def confidence(text: str) -> float | None:
    """The first `<confidence>0.8</confidence>` of `text`, from 0 to 1; None without a readable one. The tag is our
    reading: RLER's sources say that a confidence is reported, not how."""
    found = CONFIDENCE.search(text)
    return float(found[1]) if found else None
