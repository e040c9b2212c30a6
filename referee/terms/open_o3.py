"""Open-o3-Video's seven rewards (arXiv 2510.20579, domain.md section 2), without the known defects of its code.

Each is in [0, 1], and 0 on tasks that it does not apply to; the recipe `open_o3` sums all seven with weight 1.
Terms that apply to each task:

    visual QA                      format  ans_viou             thk_spatial
    temporal-spatial free-form QA  format  ans_acc              thk_spatial  thk_temporal_point
    temporal QA                    format           ans_tiou                 thk_temporal_segment
    temporal QA (MCQ)              format  ans_acc  ans_tiou                 thk_temporal_segment
    any other                      format  ans_acc
"""

from __future__ import annotations

import math
from itertools import groupby, pairwise
from typing import Literal

from evidence.answers import times
from evidence.errors import BadInput
from evidence.geometry import convert, iou
from evidence.grammar import DEGENERATE, Completion, Element, elements, read_box
from evidence.numbers import read_time
from evidence.types import NORMALISED, Box, Claim, FrameInfo, Sample
from referee.terms.answers import accuracy, answered_box, interval, rule_of, true_box, true_span
from referee.terms.view import GroupView, needs

VISUAL_QA = "visual QA"
SPATIO_TEMPORAL_QA = "temporal-spatial free-form QA"
TEMPORAL_QA = ("temporal QA", "temporal QA (MCQ)")
FRAME_TAGS, EVIDENCE_TAGS = ("think", "answer"), ("obj", "t", "box")


def ans_acc(view: GroupView) -> list[float]:
    """Accuracy of answers in words: the letter of a multiple choice, ROUGE of a free-form answer. Samples of other
    datasets use the rule of their task (referee/terms/answers.py); 0 if the answer is an interval or a box."""
    return _zeros(view) if rule_of(view.sample) in ("interval", "box") else accuracy(view)


def ans_tiou(view: GroupView) -> list[float]:
    """Temporal tasks: temporal IoU of the answered interval, with the hull as denominator; 0 for a reversed one."""
    span = true_span(view.sample)
    if view.sample.task not in TEMPORAL_QA or span is None:
        return _zeros(view)
    return [interval(completion.answer or "", span) for completion in view.completions]


@needs("frames")
def ans_viou(view: GroupView) -> list[float]:
    """Visual QA: IoU of the answered box with the reference's, converted from original to resized pixels."""
    return answered_box(view) if view.sample.task == VISUAL_QA else _zeros(view)


def open_o3_format(view: GroupView) -> list[float]:
    """0 unless thought and answer exist with balanced tags, none inside its like, and the thought's evidence tags
    balance; 1 if the evidence that the task requires is there, or the task requires none; else .5.

    Required evidence: two times in the thought for temporal tasks; an object, a box and a time in the thought for
    temporal-spatial free-form QA; for visual QA either that, or an object and its box anywhere in the completion. Only
    tags that are closed, not inside their like and readable count: an object has a letter or digit, a box four numbers.
    """
    return [_form(view.sample.task, text, completion) for text, completion in zip(view.texts, view.completions)]


def thk_temporal_segment(view: GroupView) -> list[float]:
    """Temporal tasks: the share of the thought's times that lie in the true span; both ends of an interval count. A
    time that the prompt printed for a frame lies in it if the frame does, too: 10.0 may stand for a frame at 9.967."""
    span = true_span(view.sample)
    if view.sample.task not in TEMPORAL_QA or span is None:
        return _zeros(view)

    def inside(time: float) -> bool:
        return any(span[0] <= t <= span[1] for t in (time, view.printed.get(time, time)))

    return [_mean([float(inside(time)) for time in _thought_times(c)]) for c in view.completions]


def thk_temporal_point(view: GroupView) -> list[float]:
    """Temporal-spatial free-form QA: mean of exp(-d^2 / 2 sigma^2) over the thought's times, where d is the distance in
    seconds to the nearest key frame.

    Adaptive proximity: sigma = 4 (1 - progress) seconds while progress < 3/4, then 1.
    """
    keys = [frame.time for frame in view.sample.key_frames]
    if view.sample.task != SPATIO_TEMPORAL_QA or not keys:
        return _zeros(view)
    sigma = 4 * (1 - view.progress) if view.progress < 3 / 4 else 1.0

    def proximity(time: float) -> float:
        return math.exp(-(min(abs(time - key) for key in keys) ** 2) / (2 * sigma**2))

    return [_mean([proximity(time) for time in _thought_times(completion)]) for completion in view.completions]


@needs("frames")
def thk_spatial(view: GroupView, *, tau: float = 3.0, per: Literal["claim", "box"] = "claim") -> list[float]:
    """Fit of the thought's boxes to labelled boxes. Raises BadInput if `tau` is negative, or if there is a box and the
    frame size is unknown.

    Visual QA: the best IoU of any box with the reference's. Temporal-spatial free-form QA: the mean over claims (an
    object with its boxes at a time) of the fit to the nearest labelled key frame; 0 for a claim more than `tau` seconds
    from it. The fit to an object is the mean over its labelled boxes of the best IoU; the best object counts.

    With `per` claim, as released, further boxes cost nothing: enough boxes all over the frame earn nearly everything.
    With `per` box the sum of the best IoUs is divided by the number of the claim's boxes where that is larger than the
    number of the object's; for visual QA the best IoU is divided by the number of boxes in the thought.
    """
    if not tau >= 0:
        raise BadInput(f"thk_spatial: tau = {tau}: must be 0 s or more")
    boxed = any(claim.box for completion in view.completions for claim in completion.claims)
    if view.sample.task not in (VISUAL_QA, SPATIO_TEMPORAL_QA) or not boxed:
        return _zeros(view)
    if view.sample.task == VISUAL_QA:
        truth = true_box(view)
        claimed = [[claim.box for claim in c.claims if claim.box is not None] for c in view.completions]
        best = [max((iou(box, truth) for box in boxes), default=0.0) if truth else 0.0 for boxes in claimed]
        return best if per == "claim" else [fit / max(len(boxes), 1) for fit, boxes in zip(best, claimed)]
    labels = _labels(view.sample, view.known_frames)
    return [
        _mean([_fit(boxes, time, labels, tau, per == "box") for boxes, time in _claimed(c)]) for c in view.completions
    ]


# For each key frame with boxes: its time, and the boxes of each object in it, in pixels of the resized frame.
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
    """Boxes and time of each claim in Open-o3-Video's sense: one object's boxes at one time, which share their span.
    The time of an interval is its start, as everywhere (evidence.types.Claim)."""
    complete = [claim for claim in completion.claims if claim.valid or claim.reason == DEGENERATE]
    by_span = [list(claims) for _, claims in groupby(complete, key=_span)]
    return [([c.box for c in claims if c.box], claims[0].time or 0.0) for claims in by_span]


def _span(claim: Claim) -> tuple[int, int]:
    return claim.span


def _fit(boxes: list[Box], time: float, labels: _Labels, tau: float, per_box: bool) -> float:
    if not labels:
        return 0.0
    at, objects = min(labels, key=lambda label: abs(time - label[0]))
    if abs(time - at) > tau:
        return 0.0

    def fit(trues: list[Box]) -> float:
        divisor = max(len(trues), len(boxes)) if per_box else len(trues)
        return sum(max(iou(box, true) for box in boxes) for true in trues) / divisor

    return max(map(fit, objects))


def _form(task: str, text: str, completion: Completion) -> float:
    if completion.think is None or completion.answer is None or not _balanced(text, FRAME_TAGS) or _nested(text):
        return 0.0
    if not _balanced(completion.think, EVIDENCE_TAGS):
        return 0.0
    evidence = _readable(completion.think)
    all_kinds = {element[0] for element in evidence} == set(EVIDENCE_TAGS)
    if task in TEMPORAL_QA:
        tags = [completion.think.count("<t>", start, end) for name, _, start, end in evidence if name == "t"]
        has_evidence = sum(tags) >= 2
    elif task == VISUAL_QA:
        has_evidence = all_kinds or any(_object_and_box(*pair) for pair in pairwise(_readable(text)))
    elif task == SPATIO_TEMPORAL_QA:
        has_evidence = all_kinds
    else:
        has_evidence = True
    return 1.0 if has_evidence else 0.5


def _balanced(text: str, tags: tuple[str, ...]) -> bool:
    return all(text.count(f"<{tag}>") == text.count(f"</{tag}>") for tag in tags)


def _nested(text: str) -> bool:
    """Whether a thought holds a thought, or an answer an answer. `text` has balanced tags."""
    return any(f"</{tag}>" not in part for tag in FRAME_TAGS for part in text.split(f"<{tag}>")[1:])


def _readable(text: str) -> list[Element]:
    """The evidence tags of `text` that are closed, not inside their like, and hold what they should."""
    kept, depth, checked = [], dict.fromkeys(EVIDENCE_TAGS, 0), dict.fromkeys(EVIDENCE_TAGS, 0)
    for element in elements(text):
        name, content, start, _ = element
        depth[name] += text.count(f"<{name}>", checked[name], start) - text.count(f"</{name}>", checked[name], start)
        checked[name] = start
        if content is not None and depth[name] == 0 and _holds(name, content):
            kept.append(element)
    return kept


def _holds(name: str, content: str) -> bool:
    if name == "obj":
        return "<" not in content and any(map(str.isalnum, content))
    return (read_time(content).time if name == "t" else read_box(content).box) is not None


def _object_and_box(first: Element, second: Element) -> bool:
    """Whether an object is followed at once by its box in brackets, as in the released code, which however takes
    objects of one word only."""
    bracketed = (second[1] or "").startswith("[") and (second[1] or "").endswith("]")
    return (first[0], second[0]) == ("obj", "box") and first[3] == second[2] and bracketed


def _thought_times(completion: Completion) -> list[float]:
    moments, intervals = times(completion.think or "")
    return moments + [end for interval in intervals for end in interval]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _zeros(view: GroupView) -> list[float]:
    return [0.0] * len(view.completions)
