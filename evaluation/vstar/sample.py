"""One sample of a V-STaR result file: the truth that the scorer compares with. Pure.

A result file is the annotation with answers added, so that every sample carries its own truth. There is no sample id:
the position in the file counts, and a video is asked about several times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from evidence.numbers import Interval
from evidence.types import Box
from rollout.dataset.row import number, span
from rollout.dataset.vstar import SIDES

NEEDED = ("vid", "question", "answer", "timestamps", "bboxes")
SHORT_S, MEDIUM_S = 60.0, 180.0  # a shorter video is short, or medium
UNKNOWN = "unknown"
LENGTHS = ("short", "medium", "long", UNKNOWN)


@dataclass(frozen=True, slots=True)
class VstarSample:
    """The truth of one sample.

    position: in the file, from 0. length: one of LENGTHS. span: start and end in seconds.
    boxes: the second as it is written, which is compared as text, and the box in pixels of the original video.
    size: (width, height) of the original video; None if it is not given. values: the whole row, with its answers.
    """

    position: int
    video: str
    domain: str
    length: str
    span: Interval
    boxes: tuple[tuple[str, Box], ...]
    size: tuple[float, float] | None
    values: dict[str, Any]


def read_sample(values: Any, position: int) -> VstarSample:
    """Raises ValueError, with the reason, for a row that cannot be scored."""
    if not isinstance(values, dict):
        raise ValueError("not an object; a V-STaR sample is one")
    missing = [key for key in NEEDED if values.get(key) is None]
    if missing:
        raise ValueError(f"not a V-STaR result: it lacks {', '.join(missing)}")
    boxes = tuple(_boxes(values["bboxes"]))
    if not boxes:
        raise ValueError("bboxes is empty: there is no box to compare with")
    return VstarSample(
        position=position,
        video=str(values["vid"]),
        domain=str(values.get("domain") or UNKNOWN),
        length=_length(values),
        span=span(values["timestamps"], "timestamps"),
        boxes=boxes,
        size=_size(values),
        values=values,
    )


def _length(values: dict[str, Any]) -> str:
    """The length class by the seconds rounded to two decimals, as in the official script."""
    try:
        seconds = round(number(values.get("frame_count"), "frame_count") / number(values.get("fps"), "fps"), 2)
    except (ValueError, ZeroDivisionError, OverflowError):
        return UNKNOWN
    return "short" if seconds < SHORT_S else "medium" if seconds < MEDIUM_S else "long"


def _size(values: dict[str, Any]) -> tuple[float, float] | None:
    try:
        size = number(values.get("width"), "width"), number(values.get("height"), "height")
    except ValueError:
        return None
    return size if min(size) > 0 else None


def _boxes(bboxes: Any) -> Iterator[tuple[str, Box]]:
    """Boxes of {timestamp, xmin, …}, of {"timestamp_frameindex": {xmin, …}} as in older files, or of one such object
    with all boxes."""
    listed = [{key: value} for key, value in bboxes.items()] if isinstance(bboxes, dict) else bboxes
    if not isinstance(listed, list):
        raise ValueError("bboxes must be a list of boxes")
    sides: Any
    for value in listed:
        if not isinstance(value, dict):
            raise ValueError("a box of bboxes must be an object with timestamp, xmin, ymin, xmax, ymax")
        second, sides = str(value.get("timestamp")), value
        if "timestamp" not in value and len(value) == 1:
            ((key, sides),) = value.items()
            second = key.partition("_")[0]
        if isinstance(sides, list) and len(sides) == 4:
            sides = dict(zip(SIDES, sides))
        if second == "None" or not isinstance(sides, dict) or not all(side in sides for side in SIDES):
            raise ValueError("a box of bboxes lacks timestamp, xmin, ymin, xmax or ymax")
        x1, y1, x2, y2 = (number(sides[side], side) for side in SIDES)
        yield second, (x1, y1, x2, y2)
