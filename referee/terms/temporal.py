"""Temporal IoU of the answered intervals, as in work related to SER (domain.md section 5).

All terms read an answer's intervals in any notation (evidence.answers.intervals) and compare them with the sample's
true spans; they are 0 for a sample without spans, an answer without an interval, and a reversed interval. For two
intervals, hull and union give the same IoU, since they differ only if the intervals are disjoint. So one term serves
both definitions, and the union matters only for several intervals.
"""

from __future__ import annotations

import math

from evidence.answers import intervals
from evidence.geometry import tiou
from evidence.numbers import Interval
from evidence.types import Sample
from referee.terms.answers import interval, reference_of, true_span
from referee.terms.view import GroupView


def temporal_iou(view: GroupView) -> list[float]:
    """Temporal IoU of the first answered interval and the first true span."""
    span = true_span(view.sample)
    return [interval(completion.answer or "", span) if span else 0.0 for completion in view.completions]


def temporal_iou_boundary(view: GroupView) -> list[float]:
    """Time-R1 (arXiv 2503.13377): temporal IoU times 1 - |s - s'| / T times 1 - |e - e'| / T, both factors at least 0.
    T is the video's duration according to the data, else as decoded; NaN if neither is known."""
    span = true_span(view.sample)
    length = view.sample.duration or (view.frames.duration if view.frames else None)
    if not length:
        return [math.nan] * len(view.completions)
    if span is None:
        return [0.0] * len(view.completions)

    def near(a: float, b: float) -> float:
        return max(0.0, 1 - abs(a - b) / length)

    reversed_interval = (0.0, -1.0)  # stands for a missing one
    firsts = [answered[0] if answered else reversed_interval for answered in _answered(view)]
    return [tiou(first, span) * near(first[0], span[0]) * near(first[1], span[1]) for first in firsts]


def temporal_iou_multi(view: GroupView) -> list[float]:
    """VideoChat-R1 (arXiv 2504.06958): IoU of the union of all answered intervals and the union of all true spans. An
    answer with a reversed interval earns 0."""
    truth = _true_spans(view.sample)
    return [_union_iou(answered, truth) for answered in _answered(view)]


def _answered(view: GroupView) -> list[list[Interval]]:
    return [intervals(completion.answer or "") for completion in view.completions]


def _true_spans(sample: Sample) -> list[Interval]:
    return list(sample.spans) or intervals(reference_of(sample).rpartition("\n")[2])


def _union_iou(a: list[Interval], b: list[Interval]) -> float:
    if any(start > end for start, end in (*a, *b)):
        return 0.0
    union = _length([*a, *b])
    return (_length(a) + _length(b) - union) / union if union > 0 else 0.0


def _length(spans: list[Interval]) -> float:
    """Seconds that lie in at least one of the intervals."""
    total, reached = 0.0, -math.inf
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
