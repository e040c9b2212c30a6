"""Open-o3-Video's seven rewards (arXiv 2510.20579, domain.md section 2), without the known defects of its code.

Each is in [0, 1], and 0 on the tasks that it does not concern; the recipe `open_o3` sums all seven with weight 1.
Which is for which task:

    visual QA                      format  ans_viou             thk_spatial
    temporal-spatial free-form QA  format  ans_acc              thk_spatial  thk_temporal_point
    temporal QA                    format           ans_tiou                 thk_temporal_segment
    temporal QA (MCQ)              format  ans_acc  ans_tiou                 thk_temporal_segment
    any other                      format  ans_acc
"""

from __future__ import annotations

import math
from itertools import groupby

from evidence.answers import times
from evidence.errors import BadInput
from evidence.geometry import convert, iou
from evidence.grammar import DEGENERATE, Completion
from evidence.types import NORMALISED, Box, Claim, FrameInfo, Sample
from referee.terms.answers import accuracy, answered_box, interval, rule_of, true_box, true_span
from referee.terms.view import GroupView, needs

VISUAL_QA = "visual QA"
SPATIO_TEMPORAL_QA = "temporal-spatial free-form QA"
TEMPORAL_QA = ("temporal QA", "temporal QA (MCQ)")
FRAME_TAGS, EVIDENCE_TAGS = ("think", "answer"), ("obj", "t", "box")


def ans_acc(view: GroupView) -> list[float]:
    """Accuracy of answers in words: the letter of a multiple choice, ROUGE of a free-form answer. A sample of another
    dataset goes by its own task's rule (referee/terms/answers.py); 0 where the answer is an interval or a box."""
    return _none(view) if rule_of(view.sample) in ("interval", "box") else accuracy(view)


def ans_tiou(view: GroupView) -> list[float]:
    """Temporal tasks: temporal IoU of the answered interval, hull as denominator; 0 for a reversed one."""
    span = true_span(view.sample)
    if view.sample.task not in TEMPORAL_QA or span is None:
        return _none(view)
    return [interval(completion.answer or "", span) for completion in view.completions]


@needs("frames")
def ans_viou(view: GroupView) -> list[float]:
    """Visual QA: IoU of the answered box, the reference's taken from pixels of the original to the resized ones."""
    return answered_box(view) if view.sample.task == VISUAL_QA else _none(view)


def open_o3_format(view: GroupView) -> list[float]:
    """0 unless thought and answer are there and their tags balance, and in the thought each kind of evidence tag; 1 if
    the thought has the evidence that the task asks for, or the task asks for none; else .5.

    Evidence is: for temporal tasks two `<t>`, for visual QA an object with a box, for temporal-spatial free-form QA an
    object, a box and a time. Our reading: it has to be in the thought for visual QA, too, where the released code takes
    the answer's own box for it.
    """
    return [_form(view.sample.task, text, said) for text, said in zip(view.texts, view.completions)]


def thk_temporal_segment(view: GroupView) -> list[float]:
    """Temporal tasks: the share of the thought's times that lie in the true span; of an interval, both ends count."""
    span = true_span(view.sample)
    if view.sample.task not in TEMPORAL_QA or span is None:
        return _none(view)
    return [_mean([float(span[0] <= time <= span[1]) for time in _thought_times(c)]) for c in view.completions]


def thk_temporal_point(view: GroupView) -> list[float]:
    """Temporal-spatial free-form QA: mean of exp(-d^2 / 2 sigma^2) over the thought's times, d the seconds to the
    nearest key frame.

    Adaptive proximity: sigma = 4 (1 - progress) seconds while progress < 3/4, then 1.
    """
    keys = [frame.time for frame in view.sample.key_frames]
    if view.sample.task != SPATIO_TEMPORAL_QA or not keys:
        return _none(view)
    sigma = 4 * (1 - view.progress) if view.progress < 3 / 4 else 1.0

    def proximity(time: float) -> float:
        return math.exp(-(min(abs(time - key) for key in keys) ** 2) / (2 * sigma**2))

    return [_mean([proximity(time) for time in _thought_times(completion)]) for completion in view.completions]


@needs("frames")
def thk_spatial(view: GroupView, *, tau: float = 3.0) -> list[float]:
    """How well the thought's boxes fit labelled ones. Raises BadInput where there is a box, and the frame size is not
    known, and unless `tau` is 0 or more.

    Visual QA: the best IoU of any box with the answer's. Temporal-spatial free-form QA: the mean over claims (an object
    with its boxes at a time) of their fit to the nearest labelled key frame, 0 for a claim more than `tau` seconds from
    it. The fit to an object is the mean over its boxes of the best IoU; the best object's is taken.
    """
    if not tau >= 0:
        raise BadInput(f"thk_spatial: tau = {tau}: it has to be 0 s or more")
    boxed = any(claim.box for completion in view.completions for claim in completion.claims)
    if view.sample.task not in (VISUAL_QA, SPATIO_TEMPORAL_QA) or not boxed:
        return _none(view)
    if view.sample.task == VISUAL_QA:
        truth = true_box(view)
        said = [[claim.box for claim in c.claims if claim.box is not None] for c in view.completions]
        return [max((iou(box, truth) for box in found), default=0.0) if truth else 0.0 for found in said]
    labels = _labels(view.sample, view.known_frames)
    return [_mean([_fit(boxes, time, labels, tau) for boxes, time in _claimed(c)]) for c in view.completions]


# Of each key frame with boxes: its time, and the boxes of each object in it, in pixels of the resized frame.
_Labels = list[tuple[float, list[list[Box]]]]


def _labels(sample: Sample, frames: FrameInfo) -> _Labels:
    space = frames.resized_space
    labels = [
        (key.time, [[convert(box, NORMALISED, space) for box in boxes] for boxes in objects.values() if boxes])
        for key in sample.key_frames
        for objects in [sample.key_items.get(key.idx, {})]
    ]
    return [label for label in labels if label[1]]


def _claimed(completion: Completion) -> list[tuple[list[Box], float]]:
    """The boxes and the time of each claim of Open-o3-Video's: one object's boxes at one time share their span here.
    Of one about an interval the time is its start, as everywhere (evidence.types.Claim)."""
    complete = [claim for claim in completion.claims if claim.valid or claim.reason == DEGENERATE]
    together = [list(claims) for _, claims in groupby(complete, key=_span)]
    return [([c.box for c in claims if c.box], claims[0].time or 0.0) for claims in together]


def _span(claim: Claim) -> tuple[int, int]:
    return claim.span


def _fit(boxes: list[Box], time: float, labels: _Labels, tau: float) -> float:
    if not labels:
        return 0.0
    at, objects = min(labels, key=lambda label: abs(time - label[0]))
    if abs(time - at) > tau:
        return 0.0
    return max(_mean([max(iou(box, true) for box in boxes) for true in trues]) for trues in objects)


def _form(task: str, text: str, said: Completion) -> float:
    if said.think is None or said.answer is None or not _balanced(text, FRAME_TAGS):
        return 0.0
    if not _balanced(said.think, EVIDENCE_TAGS):
        return 0.0
    if task in TEMPORAL_QA:
        shown = said.think.count("<t>") >= 2
    elif task == VISUAL_QA:
        shown = any(claim.phrase and claim.box for claim in said.claims)
    elif task == SPATIO_TEMPORAL_QA:
        shown = all(f"<{tag}>" in said.think for tag in EVIDENCE_TAGS)
    else:
        shown = True
    return 1.0 if shown else 0.5


def _balanced(text: str, tags: tuple[str, ...]) -> bool:
    return all(text.count(f"<{tag}>") == text.count(f"</{tag}>") for tag in tags)


def _thought_times(completion: Completion) -> list[float]:
    moments, intervals = times(completion.think or "")
    return moments + [end for interval in intervals for end in interval]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _none(view: GroupView) -> list[float]:
    return [0.0] * len(view.completions)
