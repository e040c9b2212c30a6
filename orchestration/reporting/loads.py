"""What the parts of a run do: load and rate of each engine, and memory. Each is read once a step."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil

from orchestration.supervision.referee_pool import Referee
from orchestration.supervision.rollout_pool import RolloutPool

GIB = 2**30


class EngineLoads:
    """The engines' load between two calls of `metrics`. clock: the time in seconds."""

    def __init__(self, pool: RolloutPool, clock: Callable[[], float] = time.monotonic):
        self._pool, self._clock = pool, clock
        self._last = clock()

    def begin(self) -> None:
        """Leave out what was done so far."""
        self._pool.take_begun()
        self._pool.take_done()
        self._last = self._clock()

    def metrics(self) -> dict[str, float]:
        """`engines/*` and `rollout/tokens_per_s` since the last call. A group counts when it ends."""
        now = self._clock()
        elapsed_s, self._last = max(now - self._last, 1e-9), now
        begun, done = self._pool.take_begun(), self._pool.take_done()
        metrics = {
            "engines/groups_min": min(begun),
            "engines/groups_max": max(begun),
            "engines/queue": self._pool.queue,
            "rollout/tokens_per_s": sum(tokens for _, tokens in done) / elapsed_s,
        }
        for number, (group_s, tokens) in enumerate(done):
            metrics[f"engines/{number}/load"] = group_s / elapsed_s
            metrics[f"engines/{number}/tokens_per_s"] = tokens / elapsed_s
        return metrics


def referee_loads(referee: Referee) -> dict[str, float]:
    """The calls under way at each actor of the referee."""
    return {f"referee/{number}/calls": facts.asked for number, facts in enumerate(referee.facts())}


def memory() -> dict[str, float]:
    """Of the machine on which the command runs, and of its process there."""
    return {
        "memory/host_gib": psutil.virtual_memory().used / GIB,
        "memory/driver_gib": psutil.Process().memory_info().rss / GIB,
    }
