"""Spans of work as events of the Chrome trace format, which ui.perfetto.dev opens. Pure.

The format: "Trace Event Format", https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Span:
    """What an actor did from `began` to `ended`, in seconds of one clock. work: the group or clip for which, if any."""

    actor: str
    name: str
    began: float
    ended: float
    work: str = ""


def trace_events(spans: Sequence[Span]) -> list[dict[str, Any]]:
    """A process for each actor, with as many threads as it does things side by side. Times are in microseconds since
    the first span began."""
    zero = min((span.began for span in spans), default=0.0)
    events: list[dict[str, Any]] = []
    for pid, actor in enumerate(sorted({span.actor for span in spans}, key=_in_order), 1):
        events.append({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": actor}})
        events.append({"ph": "M", "name": "process_sort_index", "pid": pid, "args": {"sort_index": pid}})
        for tid, lane in enumerate(_lanes(span for span in spans if span.actor == actor), 1):
            for span in lane:
                times = {"ts": 1e6 * (span.began - zero), "dur": 1e6 * (span.ended - span.began)}
                args = {"for": span.work} if span.work else {}
                events.append({"ph": "X", "name": span.name, "pid": pid, "tid": tid, **times, "args": args})
    return events


def _in_order(actor: str) -> str:
    """Sorts engine 10 after engine 2."""
    return re.sub(r"\d+", lambda number: number[0].zfill(6), actor)


def _lanes(spans: Iterable[Span]) -> list[list[Span]]:
    """The spans in lanes, in each of which they follow each other, those for one piece of work in the same one where
    that is free."""
    lanes: list[list[Span]] = []
    for span in sorted(spans, key=lambda span: (span.began, -span.ended)):
        free = [lane for lane in lanes if lane[-1].ended <= span.began]
        if not free:
            lanes.append([span])
        else:
            min(free, key=lambda lane: lane[-1].work != span.work).append(span)
    return lanes
