"""How the time of rollout engines divides into work for training and causes of idleness.

Guarantee: at every moment each engine is in exactly one state, so the shares of a step add up to 1. Pure.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestration.supervision.weight_updates import RolloutEngine

BUSY, WEIGHTS, FRAMES, BOUND = "busy", "idle_weights", "idle_frames", "idle_bound"
EVALUATION, RESTART = "idle_evaluation", "idle_restart"
STATES = (BUSY, WEIGHTS, FRAMES, BOUND, EVALUATION, RESTART)


def state(engine: RolloutEngine, queue: int, awaiting_frames: int) -> str:
    """What the engine does or waits for. queue: groups that wait for an engine. awaiting_frames: those that wait for
    their frames.

    An engine with a group is busy, also while an update interrupts its decoding. One without, which leaves groups in
    the queue, may not start them before it holds newer weights: the dispatcher gives an idle engine any other group.
    """
    if not engine.live:
        return RESTART if engine.restarted else WEIGHTS
    if engine.holds is not None:
        return EVALUATION
    if engine.groups:
        return BUSY
    if queue:
        return WEIGHTS
    return FRAMES if awaiting_frames else BOUND


class EngineTimes:
    """Adds up the time that engines spend in each state. clock: the time in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._since = clock, clock()
        self._states: tuple[str, ...] = ()
        self._seconds: Counter[str] = Counter()

    def note(self, states: Iterable[str]) -> None:
        """From now on, the engines are in these states."""
        now = self._clock()
        for before in self._states:
            self._seconds[before] += now - self._since  # type: ignore[assignment]
        self._states, self._since = tuple(states), now

    def take(self) -> dict[str, float]:
        """The share of each state in the time since the last call; empty if no time has passed."""
        self.note(self._states)
        total = sum(self._seconds.values())
        shares = {name: self._seconds[name] / total for name in STATES} if total else {}
        self._seconds.clear()
        return shares
