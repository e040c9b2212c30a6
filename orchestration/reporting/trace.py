"""Records which actor does what during some steps (`trace`), for ui.perfetto.dev.

    with work(GROUPS, "group 7"):           # a span, and the work for which the spans within it are
        with part("frames"): ...            # a span of the same actor
        with span("rollout engine 0"): ...  # a span of another one, named after the work

Guarantees: all times are of the clock of the driver, which makes the calls; without a trace, nothing is recorded; at
most MOST_SPANS are kept, and the others are counted; spans that are under way when the trace ends are cut there; a disk
that is full ends no run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path

from evidence.files import WRITE_ERRORS, write_text
from evidence.plain import dumps
from orchestration.reporting.trace_events import Span, trace_events

TRACE = "trace.json"
MOST_SPANS = 50_000  # about 10 MB, and less than a second to write

_entered: list[Trace] = []  # the trace of this process, if it has one
_work: ContextVar[tuple[str, str]] = ContextVar("work", default=("", ""))  # the actor and the name of the work

log = logging.getLogger(__name__)


class Trace:
    """The trace of the steps `window` (first, last) in `run_dir`, in a `with` block around the training. under_way:
    the spans that have not ended."""

    def __init__(self, run_dir: Path, window: Sequence[int]):
        self._path, self._window = run_dir / TRACE, window
        self._recording, self._spans, self._left_out = False, list[Span](), 0
        self.under_way: dict[int, Span] = {}

    def __enter__(self) -> Trace:
        _entered.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        """Write what was recorded if the window has not ended."""
        self.step_begins(self._window[1] + 1)
        _entered.remove(self)

    def step_begins(self, step: int) -> None:
        """Begin to record with the first step of the window, and write the file after the last one."""
        recorded, self._recording = self._recording, self._window[0] <= step <= self._window[1]
        if recorded and not self._recording:
            self._write()
            self._spans, self._left_out = [], 0

    def add(self, span: Span) -> None:
        """Keep a span that has ended within the window."""
        if self._recording and len(self._spans) < MOST_SPANS:
            self._spans.append(span)
        elif self._recording:
            self._left_out += 1

    def _write(self) -> None:
        now = time.monotonic()
        spans = self._spans + [replace(span, ended=now, cut=True) for span in list(self.under_way.values())]
        facts = {"window": self._window, "spans_left_out": self._left_out}
        try:
            write_text(self._path, dumps({"traceEvents": trace_events(spans), "otherData": facts}))
        except OSError as error:
            if error.errno not in WRITE_ERRORS:
                raise
            log.warning("%s: cannot be written (%s); training goes on", self._path, error.strerror)


@contextmanager
def span(actor: str, name: str = "") -> Iterator[None]:
    """Record what `actor` does in the block. `name`: by default that of the work for which it does so."""
    if not _entered:
        yield
        return
    trace, work = _entered[-1], _work.get()[1]
    begun = Span(actor, name or work, time.monotonic(), 0.0, work)
    trace.under_way[id(begun)] = begun
    try:
        yield
    finally:
        del trace.under_way[id(begun)]
        trace.add(replace(begun, ended=time.monotonic()))


@contextmanager
def work(actor: str, name: str) -> Iterator[None]:
    """Record a piece of work: the spans in the block, also of the tasks and threads that it starts, are for it."""
    token = _work.set((actor, name))
    try:
        with span(actor, name):
            yield
    finally:
        _work.reset(token)


@contextmanager
def part(name: str) -> Iterator[None]:
    """Record a part of the present work."""
    with span(_work.get()[0], name):
        yield


def record(actor: str, name: str, began: float, ended: float) -> None:
    """Record a span that has ended. Both times are by time.monotonic."""
    for trace in _entered:
        trace.add(Span(actor, name, began, ended))
