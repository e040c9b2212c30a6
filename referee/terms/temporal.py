"""Temporal IoU of the answered intervals, as neighbours of SER reward it (domain.md section 5).

All read the intervals of an answer in any of its forms (evidence.answers.intervals) and compare them with the sample's
true spans; 0 for a sample without any, for an answer without an interval and for a reversed one. Of two intervals the
hull and the union give the same IoU: they differ only where nothing is shared. So one term stands for both, and the
union matters where there are several.
"""

from __future__ import annotations

import math

from evidence.answers import Interval, intervals
from evidence.geometry import tiou
from evidence.types import Sample
from referee.terms.answers import interval, true_span
from referee.terms.view import GroupView


def temporal_iou(view: GroupView) -> list[float]:
    """Of the first interval answered and the first true span."""
    span = true_span(view.sample)
    return [interval(completion.answer or "", span) if span else 0.0 for completion in view.completions]


def temporal_iou_boundary(view: GroupView) -> list[float]:
    """Time-R1 (arXiv 2503.13377): temporal IoU times 1 - |s - s'| / T times 1 - |e - e'| / T, neither below 0, with T
    the video's length as the data says or, else, as it was decoded; NaN where neither is known."""
    span = true_span(view.sample)
    length = view.sample.duration or (view.frames.duration if view.frames else None)
    if not length:
        return [math.nan] * len(view.completions)
    if span is None:
        return [0.0] * len(view.completions)

    def near(a: float, b: float) -> float:
        return max(0.0, 1 - abs(a - b) / length)

    firsts = [said[0] if said else (0.0, -1.0) for said in _answered(view)]  # a reversed one for none
    return [tiou(first, span) * near(first[0], span[0]) * near(first[1], span[1]) for first in firsts]


def temporal_iou_multi(view: GroupView) -> list[float]:
    """VideoChat-R1 (arXiv 2504.06958): of all intervals answered and all true spans, each merged where they overlap:
    the length they share over the length of either. One reversed interval makes the answer earn nothing."""
    truth = _true_spans(view.sample)
    return [_union_iou(said, truth) for said in _answered(view)]


def _answered(view: GroupView) -> list[list[Interval]]:
    return [intervals(completion.answer or "") for completion in view.completions]


def _true_spans(sample: Sample) -> list[Interval]:
    return list(sample.spans) or intervals(sample.answer.rpartition("\n")[2])


def _union_iou(a: list[Interval], b: list[Interval]) -> float:
    if any(start > end for start, end in (*a, *b)):
        return 0.0
    either = _length([*a, *b])
    return (_length(a) + _length(b) - either) / either if either > 0 else 0.0


def _length(spans: list[Interval]) -> float:
    """Seconds that lie in at least one of the intervals."""
    total, reached = 0.0, -math.inf
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
