"""Supervised restart of actors: the state machine, without the actor framework.

    running -> restarting -> running -> ...        restarting -> lost, when the budget is spent

Guarantees: an actor that dies is replaced once, however many callers saw it die; a replacement is used only when it is
ready; one that dies before that is replaced in turn, as far as the budget goes. Pure: the pool that owns the actors
passes in how they are created, made ready and killed, and which errors mean that one died.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

A = TypeVar("A")


def actor_class(cls: type) -> Any:
    """`cls`, a class decorated as an actor. Type checkers ignore class decorators and see a plain class, which has no
    `options` and no `remote`. It lies here because all folders that create actors import this module."""
    return cls


class BudgetSpent(Exception):
    """More restarts are needed than the budget allows."""


@dataclass
class RestartBudget:
    """At most `most` restarts, `used` of them so far; the actors of a pool share one."""

    most: int
    used: int = 0

    def spend(self) -> None:
        """Raises BudgetSpent."""
        if self.used >= self.most:
            raise BudgetSpent(f"died {self.used + 1} times")
        self.used += 1


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
        actor = lifecycle.create()
        try:
            await lifecycle.ready(actor)
        except BaseException as error:
            lifecycle.kill(actor)
            if not isinstance(error, lifecycle.deaths):
                raise
            budget.spend()
        else:
            return actor


class Supervised(Generic[A]):
    """A running actor and its replacements. To be used from one event loop."""

    def __init__(self, actor: A, lifecycle: Lifecycle[A], budget: RestartBudget):
        self.actor = actor
        self._lifecycle, self._budget = lifecycle, budget
        self._restart: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """False while a replacement is being started, and for ever where that failed."""
        return self._restart is None

    def replace(self, actor: A) -> bool:
        """Start a replacement of `actor` in the background. False where that was done, or is under way, already."""
        if actor is not self.actor or self._restart is not None:
            return False
        self._restart = asyncio.create_task(self._replaced())
        return True

    def raise_if_lost(self) -> None:
        """Raises what ended a failed restart."""
        if self._restart is not None and self._restart.done():
            self._restart.result()

    async def settled(self) -> None:
        """Wait until the actor runs. Raises BudgetSpent, and whatever else ended its restart."""
        if self._restart is not None:
            await asyncio.shield(self._restart)

    async def _replaced(self) -> None:
        self._lifecycle.kill(self.actor)
        self._budget.spend()
        self.actor = await started(self._lifecycle, self._budget)
        self._restart = None
