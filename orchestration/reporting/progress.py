"""Says on stderr how far a command has come, how fast it is, and how long it will take.

Guarantees: a terminal has one line, which is updated in place; elsewhere a line is added every EVERY_S seconds and at
the end. Results on stdout stay clean.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from orchestration.reporting.display import clock
from orchestration.streams import say

EVERY_S = 30.0
REFRESH_S = 0.5  # of the line on a terminal


class Progress:
    """The progress of `total` questions; use it in a `with`. questions, tokens: answered so far, and written.
    seconds: from its start to its end, or to now."""

    def __init__(self, name: str, total: int, clock_s: Callable[[], float] = time.monotonic):
        self.name, self.total, self._clock_s = name, total, clock_s
        self.questions = self.tokens = 0
        self._live = Live(console=Console(stderr=True), auto_refresh=False) if sys.stderr.isatty() else None
        self._began = self._shown_at = clock_s()
        self._ended: float | None = None

    @property
    def seconds(self) -> float:
        return (self._clock_s() if self._ended is None else self._ended) - self._began

    def advance(self, tokens: int) -> None:
        """Count a question that was answered with this many tokens, or that could not be."""
        self.questions += 1
        self.tokens += tokens
        if self._clock_s() - self._shown_at >= (EVERY_S if self._live is None else REFRESH_S):
            self._show()

    def line(self) -> str:
        seconds = max(self.seconds, 1e-9)
        rate = self.questions / seconds
        left = f", {clock((self.total - self.questions) / rate)} left" if 0 < self.questions < self.total else ""
        speed = f"{rate:.2f} questions/s, {self.tokens / seconds:.0f} tokens/s"
        return f"{self.name}: {self.questions} of {self.total} questions in {clock(seconds)}, {speed}{left}"

    def __enter__(self) -> Progress:
        self._began = self._shown_at = self._clock_s()
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended = self._clock_s()
        self._show()
        if self._live is not None:
            self._live.stop()

    def _show(self) -> None:
        self._shown_at = self._clock_s()
        if self._live is None:
            say(self.line())
        else:
            self._live.update(Text(self.line()), refresh=True)
