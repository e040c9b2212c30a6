"""A circuit breaker: stops calls to a service that keeps failing, and probes it once per pause until it recovers.

Pure.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Breaker:
    """Closed until `failures` in a row; then open except for one probe every `pause_s` seconds. A success closes it.

    A probe whose outcome is never reported does no harm: the next one is allowed one pause later.
    """

    def __init__(self, failures: int, pause_s: float, clock: Callable[[], float] = time.monotonic):
        self._limit, self._pause_s, self._clock = failures, pause_s, clock
        self._consecutive_failures = 0
        self._probe_due = 0.0

    @property
    def closed(self) -> bool:
        return self._consecutive_failures < self._limit

    def allows(self) -> bool:
        """Whether a call may be made now. True from an open breaker grants the one probe: the caller must make it."""
        if self.closed:
            return True
        if self._clock() < self._probe_due:
            return False
        self._probe_due = self._clock() + self._pause_s
        return True

    def succeeded(self) -> None:
        self._consecutive_failures = 0

    def failed(self) -> None:
        self._consecutive_failures += 1
        self._probe_due = self._clock() + self._pause_s
