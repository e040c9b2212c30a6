"""Heartbeats, on rollout engines that live in this process."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import ray
from fake_engines import DRAWN, FakePool, Method, generate, hang, until

from evidence.limits import Limits

SHORT = Limits(heartbeat_s=0.1)


@pytest.fixture(autouse=True)
def kill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "kill", lambda engine: setattr(engine, "killed", True))


def test_an_engine_that_falls_silent_is_replaced() -> None:
    async def work() -> None:
        pool = FakePool(2, limits=SHORT)
        await pool.start()
        pool.engines[1].ping = Method(hang)
        await until(lambda: pool.restarts == 1)
        assert [engine.killed for engine in pool.engines] == [False, True, False]
        assert pool._engines[1].supervised.reason == (
            "rollout engine 1 did not answer within 0.1 s while running (limits.heartbeat_s)"
        )
        await until(lambda: pool.engines[2].pings > 1)
        pool.stop()
        await asyncio.sleep(0.05)
        pings = pool.engines[0].pings
        await asyncio.sleep(0.1)
        assert pool.engines[0].pings == pings, "a pool that was stopped pings no more"
        assert all(engine.killed for engine in pool.engines)

    asyncio.run(work())


def test_a_death_is_noticed_without_a_call() -> None:
    async def work() -> None:
        pool = FakePool(limits=SHORT)
        await pool.start()
        pool.engines[0].dead = True
        await until(lambda: pool.restarts == 1)
        assert await generate(pool, at_least=0) == (DRAWN, 0)

    asyncio.run(work())


def test_an_engine_that_loads_weights_for_long_is_left_alone() -> None:
    async def work() -> None:
        pool = FakePool(limits=SHORT)
        await pool.start()
        engine, lock = pool.engines[0], asyncio.Lock()

        async def load(*_: Any) -> None:
            async with lock:
                await asyncio.sleep(0.4)

        async def ping() -> None:
            engine.pings += 1
            async with lock:  # the engine's process answers after the load
                pass

        engine.update_weights, engine.ping = Method(load), Method(ping)
        for version in (1, 2, 3):
            pool.update(version)
            await asyncio.sleep(0)
            await pool.settled()
        await asyncio.sleep(0.05)
        assert pool.restarts == 0
        pings = engine.pings
        await until(lambda: engine.pings > pings)

    asyncio.run(work())


def test_a_ping_that_waits_behind_a_load_says_nothing() -> None:
    async def work() -> None:
        pool = FakePool(limits=SHORT)
        await pool.start()
        engine = pool.engines[0]

        async def load(*_: Any) -> None:
            await asyncio.sleep(0.2)

        engine.ping = Method(hang)
        await asyncio.sleep(0.04)  # the ping is under way
        engine.update_weights = Method(load)
        pool.update(1)
        await pool.settled()
        assert pool.restarts == 0
        await until(lambda: pool.restarts == 1)  # the next one fails by itself

    asyncio.run(work())
