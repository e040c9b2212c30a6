"""Scores of one V-STaR sample, by the rules of its official script (domain rules: docs/evaluation.md). Pure.

Modes: `official`; `open_o3`, in which an empty time is read again in the completion, with m:ss as seconds; `strict`,
in which every missing part is 0. They differ here only in how times are read and whether an unanswered sample is
scored; the denominators are those of evaluation.vstar.measures.

Box spaces: `as_written` compares boxes as they stand in the file, which neither the official demo nor Open-o3-Video
converts from the model's resized pixels; `converted` scales them by the sample's `input_shape`, (width, height) of the
frames that the model saw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from evaluation.faults import Faults
from evaluation.judging import RIGHT, Judge, rating, recorded_rating
from evaluation.vstar.answers import interval_of, is_number, times_in_answer
from evaluation.vstar.sample import VstarSample
from evidence.geometry import iou, tiou
from evidence.types import Box

MODES = ("official", "open_o3", "strict")
BOX_SPACES = ("as_written", "converted")
CHAINS = ("", "_2")  # suffixes of the answers' keys, chain 1 and chain 2
Scale = tuple[float, float]


@dataclass(frozen=True, slots=True)
class VstarScore:
    """One sample's scores; those of the two chains side by side.

    answered: whether `answer_vqa` is there and not empty. scored: whether the sample enters the means of the IoUs.
    rating: the judge's 0 to 3; None without an answer or if the judge failed. judged: whether a judge was asked here.
    ious: IoU of each true box. missing: time and box answers that are absent; unparsable: those in a form that the
    rules cannot read.
    """

    sample: VstarSample
    answered: bool
    scored: bool
    rating: int | None
    judged: bool
    tiou: tuple[float, float]
    ious: tuple[list[float], list[float]]
    missing: int
    unparsable: int

    @property
    def right(self) -> bool:
        return self.rating is not None and self.rating >= RIGHT


class Scorer:
    """Scores samples one by one. Counts what is wrong with them in `faults`, and notes whether the scale of boxes was
    known (`scaled`) or not (`unscaled`) for any."""

    def __init__(self, mode: str, boxes: str, judge: Judge, faults: Faults):
        self.mode, self.boxes, self.judge, self.faults = mode, boxes, judge, faults
        self.unscaled = self.scaled = False

    def score(self, sample: VstarSample) -> VstarScore:
        values, place = sample.values, f"sample {sample.position}"
        answer = values.get("answer_vqa")
        answered = bool(answer)
        scored = answered or self.mode == "strict"
        rated, judged = self._rating(sample, answer) if answered else (None, False)
        missing = unparsable = 0
        tious, ious = [0.0, 0.0], [[0.0] * len(sample.boxes)] * 2
        for chain, suffix in enumerate(CHAINS if scored else ()):
            interval, why = interval_of(self._time(values, suffix))
            if interval is not None:
                tious[chain] = tiou(interval, sample.span)
                if interval[0] > interval[1]:
                    self.faults.add(f"answer_temporal{suffix} is reversed: temporal IoU 0", place)
            located, fault = self._ious(sample, values.get(f"answer_spatial{suffix}"))
            ious[chain] = located or ious[chain]
            for key, reason, found in (("temporal", why, interval), ("spatial", fault, located)):
                unparsable += reason is not None
                missing += reason is None and found is None
                if reason is not None:
                    self.faults.add(f"answer_{key}{suffix} is {reason}: scored 0", place)
        return VstarScore(
            sample=sample,
            answered=answered,
            scored=scored,
            rating=rated,
            judged=judged,
            tiou=(tious[0], tious[1]),
            ious=(ious[0], ious[1]),
            missing=missing,
            unparsable=unparsable,
        )

    def _rating(self, sample: VstarSample, answer: Any) -> tuple[int | None, bool]:
        values = sample.values
        if "VQA_score" in values:
            return recorded_rating(values["VQA_score"]), False
        return rating(self.judge(str(values["question"]), str(values["answer"]), str(answer))), True

    def _time(self, values: dict[str, Any], suffix: str) -> Any:
        time = values.get(f"answer_temporal{suffix}")
        if self.mode == "open_o3" and time == []:
            written = values.get(f"answer_temporal_pre{suffix}")
            return times_in_answer(written) if isinstance(written, str) else time
        return time

    def _ious(self, sample: VstarSample, answer: Any) -> tuple[list[float] | None, str | None]:
        """IoU of each true box, and why the answer is unparsable; both None for a missing answer."""
        if not answer:
            return None, None
        if not isinstance(answer, dict):
            return None, "not an object of seconds" + (" (a list of boxes)" if isinstance(answer, list) else "")
        scale = self._scale(sample)
        if scale is None:
            return None, "in pixels of frames whose size (input_shape, width, height) is not given"
        if not any(second in answer for second, _ in sample.boxes):
            self.faults.add(
                "a spatial answer names none of the annotated seconds: scored 0", f"sample {sample.position}"
            )
        ious, readable = [], False
        for second, truth in sample.boxes:
            predicted = _boxes_of(answer[second], scale) if second in answer else []
            readable = readable or predicted is not None
            ious.append(max((iou(box, truth) for box in predicted or ()), default=0.0))
        return (ious, None) if readable else (None, "without four numbers to a box")

    def _scale(self, sample: VstarSample) -> Scale | None:
        """The factors from the file's boxes to pixels of the original video; None if they are not known."""
        if self.boxes == "as_written":
            return (1.0, 1.0)
        shape = sample.values.get("input_shape")
        sides = shape if isinstance(shape, list) and len(shape) == 2 else ()
        if sample.size is None or not sides or not all(is_number(side) and side > 0 for side in sides):
            self.unscaled = True
            return None
        self.scaled = True
        return sample.size[0] / sides[0], sample.size[1] / sides[1]


def _boxes_of(value: Any, scale: Scale) -> list[Box] | None:
    """The boxes predicted for one second, scaled: a box, or a list of boxes of which those that are not four finite
    numbers count for nothing. None if nothing can be read; a side that is no number at all spoils the whole second."""
    if not isinstance(value, list) or not value:
        return None
    several = [value] if is_number(value[0]) and len(value) == 4 else value
    boxes = [box for box in several if isinstance(box, list) and len(box) == 4]
    if not all(isinstance(side, int | float) for box in boxes for side in box):
        return None
    x, y = scale
    finite = [box for box in boxes if all(map(is_number, box))]
    return [(box[0] * x, box[1] * y, box[2] * x, box[3] * y) for box in finite] or None
