"""Spans of work as events of the Chrome trace format, which ui.perfetto.dev opens. Pure.

The format: "Trace Event Format", https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

LEARNER, GROUPS, READY = "learner", "groups under way", "ready groups"
EVALUATION, CHECKPOINTS = "evaluation", "checkpoints"
FIRST = (LEARNER, GROUPS, READY, EVALUATION, CHECKPOINTS)  # before engines and referees
# Actors that do one thing after the other for each piece of work. The others run several side by side.
NESTING = (LEARNER, GROUPS, EVALUATION)


@dataclass(frozen=True)
class Span:
    """What an actor did from `began` to `ended`, in seconds of one clock. work: the group or clip for which, if any.
    cut: whether it was still under way at `ended`."""

    actor: str
    name: str
    began: float
    ended: float
    work: str = ""
    cut: bool = False


def trace_events(spans: Sequence[Span]) -> list[dict[str, Any]]:
    """A process for each actor, with as many threads as it does things side by side. Times are in microseconds since
    the first span began."""
    zero = min((span.began for span in spans), default=0.0)
    events: list[dict[str, Any]] = []
    for pid, actor in enumerate(sorted({span.actor for span in spans}, key=_place), 1):
        lanes = _lanes((span for span in spans if span.actor == actor), actor in NESTING)
        events.append({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": actor}})
        events.append({"ph": "M", "name": "process_sort_index", "pid": pid, "args": {"sort_index": pid}})
        for tid, lane in enumerate(lanes, 1):
            events.append({"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": f"lane {tid}"}})
            for span in lane:
                # The ends are rounded, not the lengths: a part must not end after its span.
                began, ended = (round(1e6 * (time - zero), 3) for time in (span.began, span.ended))
                times = {"ts": began, "dur": round(ended - began, 3)}
                args = {"for": span.work} if span.work else {}
                args |= {"cut": "under way at the end of the trace"} if span.cut else {}
                events.append({"ph": "X", "name": span.name, "pid": pid, "tid": tid, **times, "args": args})
    return events


def _place(actor: str) -> tuple[Any, ...]:
    """Sorts actors: the fixed ones first, then by name and number."""
    number = re.search(r"\d+$", actor)
    return (
        FIRST.index(actor) if actor in FIRST else len(FIRST),
        actor.rstrip("0123456789"),
        int(number[0] if number else 0),
    )


def _lanes(spans: Iterable[Span], nesting: bool) -> list[list[Span]]:
    """The spans in lanes, in each of which they follow each other. With `nesting`, a span lies within another one of
    the same work that contains it."""
    lanes: list[tuple[list[Span], list[Span]]] = []  # each with those of its spans that have not ended
    for span in sorted(spans, key=lambda span: (span.began, -span.ended)):
        for place in lanes:
            under_way = place[1]
            while under_way and under_way[-1].ended <= span.began:
                under_way.pop()
            if not under_way or (nesting and under_way[-1].work == span.work and span.ended <= under_way[-1].ended):
                break
        else:
            lanes.append(place := ([], []))
        for of_lane in place:
            of_lane.append(span)
    return [lane for lane, _ in lanes]
