"""The parts of a run that are being waited for, and the line that names them. Pure."""

from __future__ import annotations

from orchestration.reporting.display import clock


class AwaitedParts:
    """Parts with the times at which the waits for them began, in seconds of one clock. Several waits for parts of the
    same name are separate."""

    def __init__(self) -> None:
        self._waits: dict[int, tuple[str, float]] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._waits)

    def begin(self, part: str, now: float) -> int:
        """Begin to wait for `part`. Returns the wait, which `end` takes."""
        self._last += 1
        self._waits[self._last] = (part, now)
        return self._last

    def end(self, wait: int) -> None:
        del self._waits[wait]

    def line(self, now: float) -> str:
        """All parts awaited, each with the duration of its wait so far, the first that began first."""
        waits = list(self._waits.values())
        return "waiting for " + ", ".join(f"{part} ({clock(now - since)})" for part, since in waits)
