"""SIGTERM and Ctrl-C: a run saves a checkpoint as soon as the step allows, and ends with exit code 75.

Guarantees: the first signal asks the run to end, or ends it at once where there is nothing to save; a second one, more
than REPEATED_S later, always ends it at once. What the process then leaves behind, its watcher removes
(supervision/session_watcher.py).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from evidence.errors import INTERRUPTED
from orchestration.streams import say

# Seconds within which another signal is the same request: `timeout` sends it to the command and to its process group,
# and wrappers such as `uv run` pass on what the terminal has sent to all. Nobody asks twice that fast.
REPEATED_S = 0.3
SIGNALS = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}


class Interruption:
    """requested: the name of the signal that asked the run to end, None so far. To be used in the main thread."""

    def __init__(self) -> None:
        self.requested: str | None = None
        self._requested_at = 0.0
        self._wake: Callable[[], object] | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals while the block runs."""
        before = {number: signal.signal(number, self._received) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def can_save(self, wake: Callable[[], object]) -> Iterator[None]:
        """In this block the run looks at `requested`, and `wake` makes it look at once."""
        self._wake = wake
        try:
            yield
        finally:
            self._wake = None

    def _received(self, number: int, frame: FrameType | None) -> None:
        name = SIGNALS[signal.Signals(number)]
        if self.requested is None and self._wake is not None:
            self.requested, self._requested_at = name, time.monotonic()
            say(f"ser: {name}: saving a checkpoint once the step has ended; a second signal ends the run at once")
            self._wake()
            return
        if self.requested is None:
            say(f"ser: {name}: ended at once, outside training; the same command with resume=auto goes on")
        elif time.monotonic() - self._requested_at < REPEATED_S:
            return
        else:
            say(f"ser: {name} again: ended at once; resume=auto goes on from the last checkpoint")
        os._exit(INTERRUPTED)


def saved_line(run_dir: Path, step: int) -> str:
    """What is said of a run that was asked to end and has saved a checkpoint."""
    return f"{run_dir} is saved after step {step}; the same command with resume=auto goes on from there"
