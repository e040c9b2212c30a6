"""Says on stderr which part of a run is awaited, and for how long:

    with awaiting("rollout engines"):
        await pool.start()

Guarantees: a terminal has one line, which is updated in place and removed when nothing is awaited any more; elsewhere
(a file, a Ray job) a line is added every EVERY_S seconds, so a shorter wait adds none. Results on stdout stay clean. A
stderr that cannot be written, such as that of a terminal that was closed, ends no run.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.live import Live
from rich.text import Text

from orchestration.reporting.awaited_parts import AwaitedParts

# Seconds. No minute of a log is silent, and a start of ten minutes takes no more than twenty lines.
EVERY_S = 30.0


class Announcer:
    """The parts that a process waits for. Waits may overlap, and may be in different threads."""

    def __init__(self, console: Console | None = None, every_s: float = EVERY_S):
        """`console`: None takes stderr. `every_s`: seconds between two lines where the console is not a terminal."""
        self._console, self._every_s = console, every_s
        self._parts = AwaitedParts()
        self._lock = threading.Lock()
        self._hide: Callable[[], None] = lambda: None
        self._last_line_at = self._idle_since = -math.inf

    @contextlib.contextmanager
    def awaiting(self, part: str) -> Iterator[None]:
        """Say that `part` is awaited while the block runs."""
        with self._lock:
            wait = self._parts.begin(part, time.monotonic())
            if len(self._parts) == 1:
                self._hide = self._show()
        try:
            yield
        finally:
            with self._lock:
                if len(self._parts) == 1:
                    with contextlib.suppress(OSError):
                        self._hide()
                    self._idle_since = time.monotonic()
                self._parts.end(wait)

    def _show(self) -> Callable[[], None]:
        """Show the parts until the returned function is called."""
        console = self._console or Console(stderr=True)
        # rich takes a file for a terminal where FORCE_COLOR is set.
        if console.file.isatty() and console.is_terminal and not console.is_dumb_terminal:
            # Only stderr is redirected while the line is shown: stdout may be a file that takes results.
            line = Live(
                get_renderable=self._text,
                console=console,
                refresh_per_second=2,
                transient=True,
                redirect_stdout=False,
            )
            with contextlib.suppress(OSError):
                line.start(refresh=True)
            return line.stop
        now = time.monotonic()
        if now - self._idle_since > self._every_s:
            self._last_line_at = now  # a new series of waits: its first line comes after `every_s`
        hidden = threading.Event()
        threading.Thread(target=self._add_lines, args=(console, hidden), daemon=True).start()
        return hidden.set

    def _text(self) -> Text:
        return Text(self._parts.line(time.monotonic()), no_wrap=True, overflow="ellipsis")

    def _add_lines(self, console: Console, hidden: threading.Event) -> None:
        while not hidden.wait(max(0.0, self._last_line_at + self._every_s - time.monotonic())):
            self._last_line_at = time.monotonic()
            with contextlib.suppress(OSError):
                console.print(self._text().plain, highlight=False, markup=False, soft_wrap=True)


awaiting = Announcer().awaiting
