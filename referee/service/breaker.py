"""A circuit breaker: who fails again and again is left alone for a while, then asked once whether it is back. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable


class Breaker:
    """Closed until `failures` in a row; then open, but for one probe in every `pause_s` seconds. A success closes it.

    A probe that is never heard of again does no harm: the next one is due a pause later.
    """

    def __init__(self, failures: int, pause_s: float, clock: Callable[[], float] = time.monotonic):
        self._limit, self._pause_s, self._clock = failures, pause_s, clock
        self._in_a_row = 0
        self._probe_due = 0.0

    @property
    def closed(self) -> bool:
        return self._in_a_row < self._limit

    def allows(self) -> bool:
        """Whether to ask now. A yes from an open breaker is the probe: whoever gets it has to ask."""
        if self.closed:
            return True
        if self._clock() < self._probe_due:
            return False
        self._probe_due = self._clock() + self._pause_s
        return True

    def succeeded(self) -> None:
        self._in_a_row = 0

    def failed(self) -> None:
        self._in_a_row += 1
        self._probe_due = self._clock() + self._pause_s
