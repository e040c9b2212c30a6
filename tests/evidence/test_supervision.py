"""Supervised restart, on actors that are plain objects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from evidence.supervision import BudgetSpent, Lifecycle, RestartBudget, Supervised, started


class Died(Exception):
    pass


class Actors:
    """Numbers stand for actors. Those in `stillborn` die as they start, those in `broken` fail in another way."""

    def __init__(self, stillborn: tuple[int, ...] = (), broken: tuple[int, ...] = ()):
        self.created: list[int] = []
        self.killed: list[int] = []
        self.stillborn, self.broken = stillborn, broken
        self.lifecycle = Lifecycle(self.create, self.ready, self.killed.append, (Died,))

    def create(self) -> int:
        self.created.append(len(self.created) + 1)
        return self.created[-1]

    async def ready(self, actor: int) -> None:
        await asyncio.sleep(0)
        if actor in self.stillborn:
            raise Died
        if actor in self.broken:
            raise ValueError("no such model")


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


def test_a_death_that_many_callers_see_is_one_restart() -> None:
    async def work() -> None:
        actors, budget = Actors(), RestartBudget(8)
        supervised = Supervised(0, actors.lifecycle, budget)
        assert [supervised.replace(0) for _ in range(3)] == [True, False, False]
        assert not supervised.running
        await supervised.settled()
        assert (supervised.actor, supervised.running, budget.used) == (1, True, 1)
        assert not supervised.replace(0), "a late report of the old actor's death is not about its successor"
        assert (actors.created, actors.killed) == ([1], [0])

    run(work)


def test_a_replacement_that_dies_as_it_starts_is_replaced_and_never_used() -> None:
    async def work() -> None:
        actors, budget = Actors(stillborn=(1, 2)), RestartBudget(8)
        supervised = Supervised(0, actors.lifecycle, budget)
        supervised.replace(0)
        await supervised.settled()
        assert (supervised.actor, budget.used, actors.killed) == (3, 3, [0, 1, 2])

    run(work)


def test_a_spent_budget_loses_the_actor_for_every_caller() -> None:
    async def work() -> None:
        actors = Actors(stillborn=(1, 2, 3))
        supervised = Supervised(0, actors.lifecycle, RestartBudget(2))
        supervised.replace(0)
        for _ in range(2):
            with pytest.raises(BudgetSpent, match="died 3 times"):
                await supervised.settled()
        with pytest.raises(BudgetSpent):
            supervised.raise_if_lost()
        assert not supervised.running
        assert actors.killed == [0, 1, 2], "nothing is left that holds memory"

    run(work)


def test_an_error_that_is_no_death_is_not_tried_again() -> None:
    async def work() -> None:
        actors = Actors(broken=(1,))
        with pytest.raises(ValueError, match="no such model"):
            await started(actors.lifecycle, RestartBudget(8))
        assert (actors.created, actors.killed) == ([1], [1])

    run(work)


def test_a_start_that_is_given_up_kills_what_it_started() -> None:
    async def work() -> None:
        actors = Actors()

        async def hang(actor: int) -> None:
            await asyncio.sleep(1000)

        hanging = Lifecycle(actors.create, hang, actors.killed.append, (Died,))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await started(hanging, RestartBudget(8))
        assert actors.killed == [1]

    run(work)
