"""Records which actor does what during some steps (`trace`), for ui.perfetto.dev.

    with work("group 7"):                   # what is done in the block is done for this group
        with span("rollout engine 0"): ...  # and bears its name, if it has none of its own

Guarantees: all times are of the clock of the driver, which makes the calls; without a trace, nothing is kept; at most
MOST_SPANS are kept, and the others are counted; a disk that is full ends no run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from evidence.files import WRITE_ERRORS, write_text
from evidence.plain import dumps
from orchestration.reporting.trace_events import Span, trace_events

TRACE = "trace.json"
MOST_SPANS = 50_000  # about 10 MB, and less than a second to write
LEARNER, GROUPS, READY = "learner", "groups and clips", "ready groups"
EVALUATION, CHECKPOINTS = "evaluation", "checkpoints"

_traces: list[Trace] = []  # of this process: one, if it has any
_work: ContextVar[str] = ContextVar("work", default="")

log = logging.getLogger(__name__)


class Trace:
    """The trace of the steps `window` (first, last) in `run_dir`, in a `with` block around the training."""

    def __init__(self, run_dir: Path, window: Sequence[int]):
        self._path, self._window = run_dir / TRACE, window
        self._recording, self._spans, self._left_out = False, list[Span](), 0

    def __enter__(self) -> Trace:
        _traces.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        """Write what was recorded if the window has not ended."""
        self.step_begins(self._window[1] + 1)
        _traces.remove(self)

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
        facts = {"window": self._window, "spans_left_out": self._left_out}
        try:
            write_text(self._path, dumps({"traceEvents": trace_events(self._spans), "otherData": facts}))
        except OSError as error:
            if error.errno not in WRITE_ERRORS:
                raise
            log.warning("%s: cannot be written (%s); training goes on", self._path, error.strerror)


@contextmanager
def work(name: str) -> Iterator[None]:
    """The spans in the block, those of the tasks and threads that it starts among them, are for this work."""
    token = _work.set(name)
    try:
        yield
    finally:
        _work.reset(token)


@contextmanager
def span(actor: str, name: str = "") -> Iterator[None]:
    """Record what `actor` does in the block. name: by default the name of the work."""
    began = time.monotonic()
    try:
        yield
    finally:
        record(actor, name or _work.get(), began, time.monotonic())


def record(actor: str, name: str, began: float, ended: float) -> None:
    """Record a span that has ended. Both times are by time.monotonic."""
    for trace in _traces:
        trace.add(Span(actor, name, began, ended, _work.get()))
