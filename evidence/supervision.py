"""Supervised restart of actors: the state machine, without the actor framework.

    running -> restarting -> running -> ...        restarting -> spent -> restarting, once the hour has room again

Guarantees: an actor that dies is replaced once, however many callers saw it die; a replacement is used only when it is
ready; one that dies or cannot be started before that is replaced in turn; restarts of one actor are spaced by growing
pauses and limited in number per hour. Pure: the pool that owns the actors passes in how they are created, made ready
and killed, and which errors mean that one died.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

A = TypeVar("A")
HOUR_S = 3600.0
# Between restarts of an actor that does not come to work: a crash at the start must not keep a machine busy.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
# An actor that has worked this long is not one that crashes as it starts.
STEADY_S = 60.0


def actor_class(cls: type) -> Any:
    """`cls`, a class decorated as an actor. Type checkers ignore class decorators and see a plain class, which has no
    `options` and no `remote`. It lies here because all folders that create actors import this module."""
    return cls


class BudgetSpent(Exception):
    """More restarts are needed than the budget allows."""


class StartFailed(Exception):
    """An actor that cannot be used: it died, hung or failed as it started. The message is one line."""


@dataclass
class RestartBudget:
    """At most `most` restarts, `used` of them so far."""

    most: int
    used: int = 0

    def spend(self) -> None:
        """Raises BudgetSpent."""
        if self.used >= self.most:
            raise BudgetSpent(f"died {self.used + 1} times")
        self.used += 1


@dataclass
class Restarts:
    """When one actor may be restarted: at most `per_hour` times in any hour, with pauses that double from one restart
    to the next until the actor has worked for STEADY_S. clock: the time in seconds. total: restarts so far."""

    per_hour: int
    clock: Callable[[], float] = time.monotonic
    total: int = 0
    _recent: deque[float] = field(default_factory=deque)  # when the restarts of the last hour began
    _in_a_row: int = 0
    _working_since: float = math.inf

    def __post_init__(self) -> None:
        self.ready()

    def ready(self) -> None:
        """Record that the actor works from now on."""
        self._working_since = self.clock()

    def pause_s(self) -> float:
        """How long to wait, from the actor's failure, before its next restart. Call it once for each failure."""
        if self.clock() - self._working_since >= STEADY_S:
            self._in_a_row = 0
        if self._in_a_row == 0:
            return 0.0
        # The exponent is bounded too: over days, a float would overflow.
        return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._in_a_row - 1, 16))

    def blocked_s(self) -> float:
        """Seconds until the hour has room for a restart; 0 if it has."""
        now = self.clock()
        while self._recent and now - self._recent[0] >= HOUR_S:
            self._recent.popleft()
        return 0.0 if len(self._recent) < self.per_hour else self._recent[0] + HOUR_S - now

    def begin(self) -> None:
        """Record that a restart begins now."""
        self._recent.append(self.clock())
        self.total += 1
        self._in_a_row += 1
        self._working_since = math.inf


@dataclass(frozen=True)
class Lifecycle(Generic[A]):
    """How an actor comes and goes.

    create: returns a new actor at once. ready: returns when it can be used. kill: frees its resources, also those of an
    actor that is only out of reach. deaths: the errors of `ready` after which another actor is worth a try.
    """

    create: Callable[[], A]
    ready: Callable[[A], Awaitable[object]]
    kill: Callable[[A], object]
    deaths: tuple[type[BaseException], ...]


async def started(lifecycle: Lifecycle[A], budget: RestartBudget) -> A:
    """A new actor that is ready. Raises BudgetSpent, and whatever else `ready` raises; no actor is left then."""
    while True:
        try:
            return await _started_once(lifecycle)
        except lifecycle.deaths:
            budget.spend()


async def _started_once(lifecycle: Lifecycle[A]) -> A:
    actor = lifecycle.create()
    try:
        await lifecycle.ready(actor)
    except BaseException:
        lifecycle.kill(actor)
        raise
    return actor


class Supervised(Generic[A]):
    """A running actor and its replacements. To be used from one event loop.

    spent: whether it is down and the hour has no room for another restart. reason: why it is, or was last, replaced.
    failure: what ended its restart for good, which is a defect. changed: called whenever one of these or `running`
    has changed.
    """

    def __init__(
        self,
        actor: A,
        lifecycle: Lifecycle[A],
        restarts: Restarts,
        changed: Callable[[], object] = lambda: None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ):
        self.actor, self.restarts = actor, restarts
        self.spent, self.reason = False, ""
        self.failure: BaseException | None = None
        self._lifecycle, self._changed, self._sleep = lifecycle, changed, sleep
        self._restart: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """False from the report of a failure until a replacement is ready."""
        return self._restart is None

    def replace(self, actor: A, reason: str) -> bool:
        """Start a replacement of `actor` in the background. False where that was done, or is under way, already."""
        if actor is not self.actor or self._restart is not None:
            return False
        self.reason = reason
        self._restart = asyncio.create_task(self._replaced())
        self._restart.add_done_callback(self._ended)
        return True

    def stop(self) -> None:
        """Give up a restart that is under way, and kill the actor."""
        if self._restart is not None:
            self._restart.cancel()
        self._lifecycle.kill(self.actor)

    async def settled(self) -> None:
        """Wait until the actor runs. Raises what ended its restart, if that failed for good."""
        if self._restart is not None:
            await asyncio.shield(self._restart)

    async def _replaced(self) -> None:
        self._lifecycle.kill(self.actor)
        while True:
            await self._turn()
            self.restarts.begin()
            try:
                self.actor = await _started_once(self._lifecycle)
            except self._lifecycle.deaths as error:
                self.reason = str(error)
            else:
                break
        self.restarts.ready()
        self._restart = None
        self._changed()

    async def _turn(self) -> None:
        """Wait until the actor may be restarted."""
        if pause_s := self.restarts.pause_s():
            await self._sleep(pause_s)
        if not self.restarts.blocked_s():
            return
        self.spent = True
        self._changed()
        while blocked_s := self.restarts.blocked_s():
            await self._sleep(blocked_s)
        self.spent = False
        self._changed()

    def _ended(self, restart: asyncio.Task[None]) -> None:
        if not restart.cancelled() and (error := restart.exception()) is not None:
            self.failure = error
            self._changed()
