"""The pool of rollout engines with actors that live in this process: updates, deaths, and the wait for both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import ray

from orchestration.supervision import rollout_pool as module
from orchestration.supervision.rollout_pool import RolloutPool, RolloutPoolLost


class Method:
    """A coroutine function that is called as the method of an actor."""

    def __init__(self, function: Callable[..., Coroutine[Any, Any, Any]]):
        self.remote = function


class FakeEngine:
    """`loads`: the versions that it was given. It answers until it is `dead`."""

    def __init__(self, dead: bool = False):
        self.dead, self.killed = dead, False
        self.loads: list[int] = []
        self.start, self.update_weights = Method(self._start), Method(self._update)
        self.generate = Method(self._generate)

    async def _start(self) -> None:
        await self._answer()

    async def _update(self, version: int) -> None:
        await self._answer()
        self.loads.append(version)

    async def _generate(self, *_: Any) -> tuple[str, int]:
        await self._answer()
        return "trajectories", self.loads[-1] if self.loads else 0

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        if self.dead:
            raise ray.exceptions.RayActorError


class FakePool(RolloutPool):
    """One engine, which lives at first. `engines`: all that were created. `stillborn`: its successors die as they
    start."""

    def __init__(self, stillborn: bool = False):
        super().__init__(None, (), None, 1, 0.0, 5.0)  # type: ignore[arg-type]
        self.engines: list[FakeEngine] = []

        def create() -> FakeEngine:
            self.engines.append(FakeEngine(dead=stillborn and bool(self.engines)))
            return self.engines[-1]

        self._create = create


@pytest.fixture(autouse=True)
def kill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.ray, "kill", lambda engine: setattr(engine, "killed", True))


def generate(pool: RolloutPool, at_least: int) -> Coroutine[Any, Any, Any]:
    return pool.generate(lambda version: version >= at_least, None, None, 1, 1.0, 8, 0)  # type: ignore[arg-type]


def test_a_death_that_an_update_meets_is_repaired_before_the_pool_is_settled() -> None:
    async def work() -> None:
        pool = FakePool()
        await pool.start()
        pool.update(1)
        await pool.settled()
        pool.engines[0].dead = True
        pool.update(2)
        await pool.settled()
        assert [engine.loads for engine in pool.engines] == [[1], [2]]
        assert pool.engines[0].killed
        assert pool.restarts == 1
        assert await generate(pool, at_least=2) == ("trajectories", 2)

    asyncio.run(work())


def test_a_restarted_engine_is_given_the_version_published_meanwhile() -> None:
    async def work() -> None:
        pool = FakePool()
        await pool.start()
        pool.update(1)
        await pool.settled()
        pool.engines[0].dead = True
        with pytest.raises(ray.exceptions.RayActorError):
            await generate(pool, at_least=0)
        waiting = asyncio.create_task(generate(pool, at_least=2))
        pool.update(2)  # while the successor starts
        assert await waiting == ("trajectories", 2)
        assert pool.engines[1].loads[-1] == 2

    asyncio.run(work())


def test_engines_that_keep_dying_end_the_run_with_the_reason() -> None:
    async def work() -> None:
        pool = FakePool(stillborn=True)
        await pool.start()
        pool.engines[0].dead = True
        pool.update(1)
        with pytest.raises(RolloutPoolLost, match=f"died {module.MAX_RESTARTS + 1} times; Ray's worker logs"):
            await pool.settled()
        with pytest.raises(RolloutPoolLost):
            await generate(pool, at_least=0)
        assert all(engine.killed for engine in pool.engines)

    asyncio.run(work())


def test_a_hanging_update_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(version: int) -> None:
        await asyncio.sleep(1000)

    async def work() -> None:
        pool = FakePool()
        await pool.start()
        pool.engines[0].update_weights = Method(hang)
        pool.update(1)
        with pytest.raises(RolloutPoolLost, match="TimeoutError while an engine was updated"):
            await pool.settled()

    monkeypatch.setattr(module, "UPDATE_TIMEOUT_S", 0.05)
    asyncio.run(work())
