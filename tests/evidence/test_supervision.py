"""Supervised restart, on actors that are plain objects and a clock that is set by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from evidence.supervision import (
    HOUR_S,
    LONGEST_PAUSE_S,
    STEADY_S,
    BudgetSpent,
    Lifecycle,
    RestartBudget,
    Restarts,
    Supervised,
    started,
)


class Died(Exception):
    pass


class Clock:
    """Time passes only in `sleep`, and there at once. `slept`: what was slept for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


class Actors:
    """Numbers stand for actors. Those in `stillborn` die as they start, those in `broken` fail in another way."""

    def __init__(self, stillborn: tuple[int, ...] = (), broken: tuple[int, ...] = ()):
        self.created: list[int] = []
        self.killed: list[int] = []
        self.stillborn, self.broken = stillborn, broken
        self.lifecycle = Lifecycle(self.create, self.ready, self.killed.append, (Died,))
        self.clock = Clock()
        self.restarts = Restarts(6, self.clock)
        self.changes: list[tuple[bool, bool]] = []

    def supervised(self) -> Supervised[int]:
        supervised = Supervised(0, self.lifecycle, self.restarts, self.changed, self.clock.sleep)
        self._supervised = supervised
        return supervised

    def changed(self) -> None:
        self.changes.append((self._supervised.running, self._supervised.spent))

    def create(self) -> int:
        self.created.append(len(self.created) + 1)
        return self.created[-1]

    async def ready(self, actor: int) -> None:
        await asyncio.sleep(0)
        if actor in self.stillborn:
            raise Died(f"actor {actor} died")
        if actor in self.broken:
            raise ValueError("no such model")


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


def test_a_death_that_many_callers_see_is_one_restart() -> None:
    async def work() -> None:
        actors = Actors()
        supervised = actors.supervised()
        assert [supervised.replace(0, "died") for _ in range(3)] == [True, False, False]
        assert not supervised.running
        await supervised.settled()
        assert (supervised.actor, supervised.running, actors.restarts.total) == (1, True, 1)
        assert not supervised.replace(0, "late"), "a late report of the old actor's death is not about its successor"
        assert (actors.created, actors.killed, actors.changes) == ([1], [0], [(True, False)])
        assert actors.clock.slept == [], "the first restart begins at once"

    run(work)


def test_a_replacement_that_dies_as_it_starts_is_replaced_after_a_pause_and_never_used() -> None:
    async def work() -> None:
        actors = Actors(stillborn=(1, 2, 3))
        supervised = actors.supervised()
        supervised.replace(0, "died")
        await supervised.settled()
        assert (supervised.actor, actors.restarts.total, actors.killed) == (4, 4, [0, 1, 2, 3])
        assert (actors.clock.slept, supervised.reason) == ([1.0, 2.0, 4.0], "actor 3 died")

    run(work)


def test_an_actor_whose_budget_is_spent_stays_down_until_its_hour_has_room() -> None:
    async def work() -> None:
        actors = Actors(stillborn=(1, 2, 3, 4, 5, 6))
        supervised = actors.supervised()
        supervised.replace(0, "died")
        await supervised.settled()
        *pauses, blocked = actors.clock.slept
        assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
        assert blocked == HOUR_S - sum(pauses), "the first of the six restarts is an hour old then"
        assert actors.changes == [(False, True), (False, False), (True, False)]
        assert (supervised.actor, actors.restarts.total) == (7, 7)
        assert actors.killed == [0, 1, 2, 3, 4, 5, 6], "nothing is left that holds memory"

    run(work)


def test_restarts_are_counted_in_a_window_that_slides() -> None:
    clock = Clock()
    restarts = Restarts(2, clock)
    for clock.now in (0.0, 1000.0):
        assert restarts.blocked_s() == 0
        restarts.begin()
    clock.now = 1500.0
    assert restarts.blocked_s() == HOUR_S - 1500
    clock.now = HOUR_S - 0.5
    assert restarts.blocked_s() == 0.5
    clock.now = HOUR_S
    assert restarts.blocked_s() == 0, "an hour after the first, only the second counts"
    restarts.begin()
    assert restarts.blocked_s() == 1000, "room again an hour after the second"
    assert restarts.total == 3


def test_pauses_double_up_to_a_minute_and_start_anew_after_steady_work() -> None:
    clock = Clock()
    restarts = Restarts(10**6, clock)
    pauses = []
    for _ in range(9):
        pauses.append(restarts.pause_s())
        restarts.begin()
        restarts.ready()
        clock.now += STEADY_S - 0.5
    assert pauses == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    clock.now += 0.5
    assert restarts.pause_s() == 0
    for _ in range(2000):
        restarts.begin()
    clock.now += 10 * STEADY_S
    assert restarts.pause_s() == LONGEST_PAUSE_S, "an actor that never became ready has not worked"


def test_an_error_that_is_no_death_ends_the_restart() -> None:
    async def work() -> None:
        actors = Actors(broken=(1,))
        with pytest.raises(ValueError, match="no such model"):
            await started(actors.lifecycle, RestartBudget(8))
        assert (actors.created, actors.killed) == ([1], [1])
        actors = Actors(broken=(1,))
        supervised = actors.supervised()
        supervised.replace(0, "died")
        with pytest.raises(ValueError, match="no such model"):
            await supervised.settled()
        assert isinstance(supervised.failure, ValueError)
        assert (actors.created, actors.killed, actors.changes) == ([1], [0, 1], [(False, False)])

    run(work)


def test_a_restart_that_is_given_up_leaves_no_actor() -> None:
    async def work() -> None:
        actors = Actors()
        supervised = actors.supervised()
        supervised.replace(0, "died")
        await asyncio.sleep(0)
        supervised.stop()
        with pytest.raises(asyncio.CancelledError):
            await supervised.settled()
        assert set(actors.killed) == {0, 1}
        assert supervised.failure is None

    run(work)


def test_a_start_is_tried_again_within_a_simple_budget() -> None:
    async def work() -> None:
        actors, budget = Actors(stillborn=(1, 2, 4, 5)), RestartBudget(3)
        assert (await started(actors.lifecycle, budget), budget.used) == (3, 2)
        with pytest.raises(BudgetSpent, match="died 4 times"):
            await started(actors.lifecycle, budget)
        assert actors.killed == [1, 2, 4, 5]

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
