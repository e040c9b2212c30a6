"""The labels of a sample on the frames that are shown of it. Pure.

Guarantees: a label stands only at a frame to which it applies by the rule of labelled claims
(referee/trust/labelled_claims): the shown frame nearest to its key frame, if that is at most SAME_FRAME_S away. All
other key frames are listed as not shown.
"""

from __future__ import annotations

from dataclasses import dataclass

from evidence.answers import boxes
from evidence.geometry import convert, nearest_frame
from evidence.types import NORMALISED, Box, BoxSpace, FrameInfo, KeyFrame, Sample
from referee.terms.answers import reference_of, rule_of
from referee.trust.labelled_claims import SAME_FRAME_S

ANSWER = "the answer's box"


@dataclass(frozen=True)
class LabelledBox:
    """A labelled box in pixels of the shown frame, not clipped to it. number: of its phrase in the sample, from 1."""

    phrase: str
    number: int
    box: Box


@dataclass(frozen=True)
class Labels:
    """boxes, key_frames: at each shown frame, by its place. not_shown: key frames that no shown frame is near."""

    boxes: tuple[tuple[LabelledBox, ...], ...]
    key_frames: tuple[tuple[KeyFrame, ...], ...]
    not_shown: tuple[KeyFrame, ...]


def labels_of(sample: Sample, info: FrameInfo) -> Labels:
    """The labels of a sample of which the frames `info` are shown."""
    at_frame: list[list[LabelledBox]] = [[] for _ in info.times]
    keys: list[list[KeyFrame]] = [[] for _ in info.times]
    not_shown = []
    numbers: dict[str, int] = {}
    for key in sample.key_frames:
        place = nearest_frame(info.times, key.time)
        if abs(info.times[place] - key.time) > SAME_FRAME_S:
            not_shown.append(key)
            continue
        keys[place].append(key)
        for phrase, labelled in sample.key_items.get(key.idx, {}).items():
            number = numbers.setdefault(phrase, len(numbers) + 1)
            shown = (convert(box, NORMALISED, info.resized_space) for box in labelled)
            at_frame[place] += [LabelledBox(phrase, number, box) for box in shown]
    if rule_of(sample) == "box":
        number = len(numbers) + 1
        at_frame[0] += [LabelledBox(ANSWER, number, box) for box in _answered(sample, info)]
    return Labels(tuple(map(tuple, at_frame)), tuple(map(tuple, keys)), tuple(not_shown))


def _answered(sample: Sample, info: FrameInfo) -> list[Box]:
    """The boxes in the answer of a visual QA, which are in pixels of the original, in pixels of the shown frame."""
    size = sample.image_size
    original = BoxSpace(*size) if size and min(size) > 0 else info.original_space
    return [convert(box, original, info.resized_space) for box in boxes(reference_of(sample))]
