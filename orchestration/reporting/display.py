"""Numbers as the terminal shows them: durations, values that may be missing, and a smoothed rate. Pure."""

from __future__ import annotations

from collections import deque

# Single steps differ by a factor of two, as the prompts of a batch do; over ten the rate changes by a few percent.
SMOOTHED_STEPS = 10


def clock(seconds: float) -> str:
    """A duration as minutes:seconds, or hours:minutes:seconds from one hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def cell(value: float | None) -> str:
    """A value with three decimals; "-" without a value."""
    return "-" if value is None else f"{value:.3f}"


class Throughput:
    """Completions per second over the last SMOOTHED_STEPS steps."""

    def __init__(self) -> None:
        self._steps: deque[tuple[int, float]] = deque(maxlen=SMOOTHED_STEPS)

    def step_ended(self, completions: int, seconds: float) -> str:
        """The rate after a step with this many completions and this duration, with the number of steps averaged."""
        self._steps.append((completions, seconds))
        total, duration = map(sum, zip(*self._steps))
        count = len(self._steps)
        return f"{total / duration:.1f} samples/s over {count} step{'s' if count > 1 else ''}"
