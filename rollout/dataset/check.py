"""Checks a dataset for errors before a run uses it."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from evidence.types import Box, FrameInfo, Sample
from rollout.dataset.read import DatasetFile
from rollout.dataset.row import box as parse_box

# A container states the duration of its video to one frame at best.
SLACK_S = 0.05
ANSWERED_BOX = re.compile(r"<box>(\[[^\[\]]*\])</box>")


@dataclass
class Report:
    """The report of `ser data check`.

    duplicates: ids of samples that repeat an earlier sample's id, or its question about the same media.
    unreadable_media: path -> reason; empty files, folders of frames without a frame rate in the data, and files that
        failed to decode if media were decoded.
    boxes_outside: labelled boxes that leave 0-1 and boxes in answers that leave image_size, or without area.
    times_outside: key frames and spans before 0, reversed, or after the end of the video if its duration is known.
    items_without_frame: frames of key_items that key_frames does not list; without a time, their boxes are unusable.
    """

    n: int
    format: str
    by_task: dict[str, int]
    by_source: dict[str, int]
    duplicates: list[str]
    missing_media: list[str]
    unreadable_media: dict[str, str]
    boxes_outside: int
    times_outside: int
    items_without_frame: int


def check(file: DatasetFile) -> tuple[Report, list[Sample]]:
    """The report on everything that can be checked without decoding media, and the samples. Raises BadInput if the file
    cannot be read as a dataset."""
    samples = list(file)
    return Report(
        n=len(samples),
        format=file.format.name,
        by_task=dict(Counter(sample.task for sample in samples)),
        by_source=dict(Counter(sample.source for sample in samples)),
        duplicates=duplicates(samples),
        missing_media=[path for path in media_of(samples) if not os.path.isfile(path) and not os.path.isdir(path)],
        unreadable_media=unreadable(samples),
        boxes_outside=sum(map(_boxes_outside, samples)),
        times_outside=sum(_times_outside(sample, sample.duration) for sample in samples),
        items_without_frame=sum(len(_items_without_frame(sample)) for sample in samples),
    ), samples


def problems(sample: Sample, duration: float | None = None) -> list[str]:
    """What a report counts about the sample alone, its media aside, in words. `duration`: of its file, in seconds; None
    takes what the data says."""
    boxes, times = _boxes_outside(sample), _times_outside(sample, sample.duration if duration is None else duration)
    without_frame = sorted(_items_without_frame(sample))
    found = []
    if boxes:
        found.append(f"{boxes} labelled {_plural('box', boxes, 'es')} outside the frame or without area")
    if times:
        found.append(f"{times} labelled {_plural('time', times)} outside the video or reversed")
    if without_frame:
        found.append(f"boxes without a time: key_frames does not list {', '.join(without_frame)}")
    return found


def add_media(report: Report, samples: list[Sample], decoded: Mapping[str, FrameInfo | str]) -> None:
    """Add the results of decoding: `decoded` maps each file to its FrameInfo, or to the reason why it is unreadable.

    Times are then checked against the durations of the files.
    """
    report.unreadable_media |= {path: result for path, result in decoded.items() if isinstance(result, str)}
    durations = {path: result.duration for path, result in decoded.items() if isinstance(result, FrameInfo)}
    report.times_outside = sum(_times_outside(s, durations.get(s.media_path, s.duration)) for s in samples)


def _plural(noun: str, count: int, ending: str = "s") -> str:
    return noun if count == 1 else noun + ending


def _items_without_frame(sample: Sample) -> set[str]:
    return sample.key_items.keys() - {frame.idx for frame in sample.key_frames}


def unreadable(samples: Sequence[Sample]) -> dict[str, str]:
    """Path -> what is wrong with the file, as far as can be said without opening it."""
    reasons = {}
    for path, has_rate in sorted({(sample.media_path, bool(sample.fps)) for sample in samples}):
        if os.path.isfile(path) and os.path.getsize(path) == 0:
            reasons[path] = "the file is empty"
        elif os.path.isdir(path) and not has_rate:
            reasons[path] = "is a folder of frames, and a sample of it states no 'fps'"
    return reasons


def media_of(samples: Iterable[Sample]) -> dict[str, float | None]:
    """Path -> the frame rate of the first sample that states one, in the order of the paths."""
    rates: dict[str, float | None] = {}
    for sample in samples:
        rates[sample.media_path] = rates.get(sample.media_path) or sample.fps
    return dict(sorted(rates.items()))


def duplicates(samples: list[Sample]) -> list[str]:
    """Ids of samples that repeat an earlier sample's id, or its question about the same media."""
    ids: set[str] = set()
    questions: set[tuple[str, str]] = set()
    duplicates = set()
    for sample in samples:
        question = (sample.media_path, sample.asked)
        if sample.id in ids or question in questions:
            duplicates.add(sample.id)
        ids.add(sample.id)
        questions.add(question)
    return sorted(duplicates)


def _boxes_outside(sample: Sample) -> int:
    labelled = [box for items in sample.key_items.values() for boxes in items.values() for box in boxes]
    outside = sum(not _inside(box, (1, 1)) for box in labelled)
    if sample.image_size:  # the space of boxes in the answer to a visual QA
        outside += sum(not _inside(box, sample.image_size) for box in _answered_boxes(sample.answer))
    return outside


def _answered_boxes(answer: str) -> list[Box]:
    """The boxes in an answer; four zeros for a box that cannot be parsed."""
    boxes = []
    for text in ANSWERED_BOX.findall(answer):
        try:
            boxes.append(parse_box(json.loads(text)))
        except ValueError:
            boxes.append((0.0, 0.0, 0.0, 0.0))
    return boxes


def _inside(box: Box, size: tuple[int, int]) -> bool:
    x1, y1, x2, y2 = box
    return 0 <= x1 < x2 <= size[0] and 0 <= y1 < y2 <= size[1]


def _times_outside(sample: Sample, duration: float | None) -> int:
    if sample.video_path is None:
        return 0
    end = float("inf") if duration is None else duration + SLACK_S
    spans = [(frame.time, frame.time) for frame in sample.key_frames] + list(sample.spans)
    if sample.part is not None:
        spans.append(sample.part)
    return sum(not 0 <= start <= stop <= end for start, stop in spans)
