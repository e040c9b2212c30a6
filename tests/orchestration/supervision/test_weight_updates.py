"""How published weights reach engines that are slow, hang, refuse them, die or were restarted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import ray
from fake_engines import DRAWN, FakePool, Method, generate, hang, until

from evidence.limits import Limits
from orchestration.supervision import weight_updates as module


@pytest.fixture(autouse=True)
def kill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "kill", lambda engine: setattr(engine, "killed", True))


def test_a_publication_does_not_wait_for_an_engine_that_is_restarted() -> None:
    async def work() -> None:
        pool = FakePool(2)
        await pool.start()
        pool.update(1)
        await pool.settled()
        pool.engines[0].dead = True
        starts = asyncio.Event()

        async def late(*_: Any) -> None:
            await starts.wait()

        create = pool._create
        pool._create = lambda: setattr(engine := create(), "start", Method(late)) or engine
        pool.update(2)
        await asyncio.wait_for(pool.settled(), 1)
        assert [engine.loads for engine in pool.engines] == [[1], [1, 2], []]
        assert pool.engines[0].killed
        assert pool.restarts == 1
        pool.update(3)
        await pool.settled()
        starts.set()
        await until(lambda: pool._engines[0].live)
        assert pool.engines[2].loads == [3], "a successor is brought to what is published when it is ready"

    asyncio.run(work())


def test_nor_for_one_that_still_catches_up_and_that_is_not_used_before_it_has() -> None:
    async def work() -> None:
        pool = FakePool()
        await pool.start()
        pool.update(1)
        await pool.settled()
        pool.engines[0].dead = True
        loads = asyncio.Event()

        async def late(*_: Any) -> None:
            await loads.wait()

        create = pool._create
        pool._create = lambda: setattr(engine := create(), "update_weights", Method(late)) or engine
        with pytest.raises(ray.exceptions.RayActorError):
            await generate(pool, at_least=0)
        engine = pool._engines[0]
        await until(lambda: engine.loading)
        await asyncio.wait_for(pool.settled(), 1)
        waiting = asyncio.create_task(generate(pool, at_least=0))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        loads.set()
        await waiting
        assert engine.version == 1

    asyncio.run(work())


def test_an_engine_that_hangs_while_it_loads_is_replaced_and_holds_nothing_up() -> None:
    async def work() -> None:
        pool = FakePool(2, limits=Limits(update_s=0.1))
        await pool.start()
        pool.engines[1].update_weights = Method(hang)
        pool.update(1)
        await asyncio.wait_for(pool.settled(), 1)
        assert await generate(pool, at_least=1) == (DRAWN, 1)
        await until(lambda: pool._engines[1].live)
        assert [engine.loads for engine in pool.engines] == [[1], [], [1]]
        assert [engine.killed for engine in pool.engines] == [False, True, False]

    asyncio.run(work())


def test_an_engine_that_refuses_a_version_keeps_its_own_and_gets_the_next(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        pool = FakePool(2)
        await pool.start()
        pool.engines[0].refuses = {1}
        pool.update(1)
        await pool.settled()
        groups = await asyncio.gather(*(generate(pool, at_least=1) for _ in range(4)))
        assert groups == 4 * [(DRAWN, 1)]
        assert pool.take_begun() == [0, 4], "the share of an engine that may not start groups goes to the others"
        assert pool.refused_updates == 1
        assert pool._engines[0].version == 0
        pool.update(2)
        await until(lambda: pool._engines[0].version == 2)
        assert [engine.loads for engine in pool.engines] == [[2], [1, 2]]
        assert pool.restarts == 0
        assert [record.message for record in caplog.records] == [
            "rollout engine 0 keeps weights 0: WeightsRefused: version 1: CorruptBucket: bucket 1"
        ]

    asyncio.run(work())


def test_an_engine_that_cannot_fetch_since_it_is_stopped_is_replaced() -> None:
    async def work() -> None:
        pool = FakePool(limits=Limits(heartbeat_s=0.1))
        await pool.start()
        pool.engines[0].refuses, pool.engines[0].ping = {1}, Method(hang)
        pool.update(1)
        await until(lambda: pool._engines[0].live and pool._engines[0].version == 1)
        assert [engine.killed for engine in pool.engines] == [True, False]
        assert (pool.refused_updates, pool.unloadable) == (0, None), "its weights are not to blame"

    asyncio.run(work())


def test_a_version_that_was_dropped_meanwhile_is_replaced_by_the_newest_at_once() -> None:
    async def work() -> None:
        pool = FakePool()
        await pool.start()
        engine, arrived = pool.engines[0], asyncio.Event()
        update = engine._update

        async def late(version: int, fetch_s: float) -> None:
            if version == 1:
                await arrived.wait()
            await update(version, fetch_s)

        engine.refuses, engine.update_weights = {1}, Method(late)
        pool.update(1)
        await asyncio.sleep(0)
        pool.update(2)
        arrived.set()
        assert await asyncio.wait_for(generate(pool, at_least=2), 0.5) == (DRAWN, 2)

    asyncio.run(work())


def test_a_refused_version_is_tried_again_until_no_engine_can_load_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        pool = FakePool(2)
        await pool.start()
        for engine in pool.engines:
            engine.refuses = {1}
        pool.update(1)
        await pool.settled()
        assert pool.unloadable is None
        await until(lambda: pool.refused_updates == 6)
        assert pool.unloadable == "WeightsRefused: version 1: CorruptBucket: bucket 1"
        pool.engines[0].refuses = set()
        await until(lambda: pool.unloadable is None)
        await generate(pool, at_least=1)

    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.02)
    asyncio.run(work())


def test_weights_that_were_lost_are_loaded_when_the_same_version_is_published_again() -> None:
    async def work() -> None:
        pool = FakePool(2)
        await pool.start()
        pool.engines[1].refuses = {1}
        pool.update(1)
        await until(lambda: pool.refused_updates == 1)
        pool.engines[1].refuses = set()
        pool.update(1)
        await until(lambda: pool._engines[1].version == 1)
        assert [engine.loads for engine in pool.engines] == [[1], [1]], "not loaded twice where it was"

    asyncio.run(work())


def test_an_engine_whose_loading_fails_otherwise_is_replaced() -> None:
    async def work() -> None:
        pool = FakePool()
        await pool.start()

        async def fails(*_: Any) -> None:
            raise ray.exceptions.RayTaskError("update_weights", "trace\nback", ValueError("weight version 1 is old"))

        pool.engines[0].update_weights = Method(fails)
        pool.update(1)
        assert await generate(pool, at_least=1) == (DRAWN, 1)
        assert pool.restarts == 1
        assert pool._engines[0].supervised.reason == (
            "rollout engine 0 failed while loading weights 1: ValueError: weight version 1 is old"
        )

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
        assert await waiting == (DRAWN, 2)
        assert pool.engines[1].loads[-1] == 2

    asyncio.run(work())


def test_the_reply_of_a_replaced_engine_does_not_make_its_successor_current() -> None:
    async def work() -> None:
        pool = FakePool()
        await pool.start()
        first, arrives = pool.engines[0], asyncio.Event()

        async def late(*_: Any) -> None:
            await arrives.wait()

        first.update_weights = Method(late)
        pool.update(1)
        await asyncio.sleep(0)
        first.dead = True
        with pytest.raises(ray.exceptions.RayActorError):
            await generate(pool, at_least=0)
        successor_starts = asyncio.Event()

        async def slowly() -> None:
            await successor_starts.wait()

        await asyncio.sleep(0)
        pool.engines[1].start = Method(slowly)
        pool.engines[1].dead = False
        arrives.set()
        await asyncio.sleep(0.01)
        successor_starts.set()
        assert await generate(pool, at_least=1) == (DRAWN, 1)
        assert pool.engines[1].loads == [1], "the successor was given the weights itself"

    asyncio.run(work())


def test_an_update_that_takes_much_longer_than_the_last_ones_is_overdue() -> None:
    async def work() -> None:
        pool = FakePool(2)
        await pool.start()
        for engine, seconds in zip(pool.engines, (0.02, 0.5)):

            async def slowly(version: int, fetch_s: float, seconds: float = seconds) -> None:
                await asyncio.sleep(seconds)

            engine.update_weights = Method(slowly)
        pool.update(1)
        await pool.settled()
        pool.update(2)
        for engine in pool.engines:
            engine.generate = Method(hang)
        groups = [asyncio.create_task(generate(pool, at_least=2)) for _ in range(8)]
        await asyncio.sleep(0.2)
        assert pool.take_begun() == [8, 0], "the slow engine's own time is no measure"
        for group in groups:
            group.cancel()
        await asyncio.gather(*groups, return_exceptions=True)
        await pool.settled()

    asyncio.run(work())


def test_a_version_published_in_the_moment_in_which_the_one_before_was_loaded_is_loaded_too() -> None:
    async def work() -> None:
        pool = FakePool()
        await pool.start()
        for version in range(1, 4):
            pool.update(version)
            while pool._engines[0].version != version:
                await asyncio.sleep(0)
        await pool.settled()
        assert pool.engines[0].loads == [1, 2, 3]

    asyncio.run(asyncio.wait_for(work(), 2))
