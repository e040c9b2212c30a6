"""The pool of rollout engines with actors that live in this process: groups, deaths and hangs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import ray
from fake_engines import DRAWN, FakePool, Method, generate, hang, until

from evidence import supervision
from evidence.limits import Limits
from orchestration.supervision import rollout_pool as module
from orchestration.supervision.rollout_pool import RolloutPoolLost


@pytest.fixture(autouse=True)
def kill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "kill", lambda engine: setattr(engine, "killed", True))


def test_engines_that_keep_dying_end_the_run_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        pool = FakePool(stillborn=True, limits=Limits(restarts_per_hour=2))
        await pool.start()
        pool.engines[0].dead = True
        waiting = asyncio.create_task(generate(pool, at_least=1))
        with pytest.raises(ray.exceptions.RayActorError):
            await generate(pool, at_least=0)
        message = (
            r"^rollout engine 0 was restarted 2 times within an hour \(limits.restarts_per_hour\); last, "
            r"rollout engine 0 died while starting; the logs of Ray's workers say why$"
        )
        with pytest.raises(RolloutPoolLost, match=message):
            await waiting
        with pytest.raises(RolloutPoolLost):
            await generate(pool, at_least=0)
        with pytest.raises(RolloutPoolLost):
            await pool.settled()
        assert all(engine.killed for engine in pool.engines)
        assert pool.restarts == 2

    monkeypatch.setattr(supervision, "FIRST_PAUSE_S", 0.0)
    asyncio.run(work())


def test_one_engine_with_a_spent_budget_does_not_end_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        pool = FakePool(2, limits=Limits(restarts_per_hour=2))
        await pool.start()
        create = pool._create
        pool._create = lambda: setattr(engine := create(), "dead", True) or engine
        first = pool._engines[0]
        pool.engines[0].dead = True
        pool.update(1)
        await until(lambda: first.supervised.spent)
        assert await generate(pool, at_least=1) == (DRAWN, 1)
        spent = [record.message for record in caplog.records if "stays down" in record.message]
        assert spent == [
            "rollout engine 0 died while starting; the logs of Ray's workers say why; it was restarted 2 times within "
            "an hour (limits.restarts_per_hour) and stays down for 0:01"
        ]
        pool._create = create
        pool.update(2)
        await until(lambda: first.live)
        assert pool.engines[-1].loads == [2], "back within the next hour, with what was published meanwhile"
        assert (pool.restarts, first.version) == (3, 2)

    monkeypatch.setattr(supervision, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(supervision, "HOUR_S", 0.7)
    asyncio.run(work())


def test_what_an_engine_that_hangs_was_doing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def start() -> None:
        pool = FakePool(2, limits=Limits(start_s=0.05))
        create = pool._create
        pool._create = lambda: setattr(engine := create(), "start", Method(hang)) or engine
        with pytest.raises(RolloutPoolLost, match=r"^rollout engine [01] did not answer within 0.05 s while starting"):
            await pool.start()

    async def generation() -> None:
        pool = FakePool(limits=Limits(generation_s=0.05, stall_s=0.05))
        await pool.start()
        pool.engines[0].generate = Method(hang)
        with pytest.raises(TimeoutError, match=r"^rollout engine 0 .* generating a group \(limits.generation_s\)$"):
            await generate(pool, at_least=0)
        with pytest.raises(TimeoutError, match=r"^no rollout engine could start a group within 0.05 s"):
            await generate(pool, at_least=1)
        assert not pool._dispatcher.queue
        assert pool.restarts == 1, "the engine that hung was replaced"

    monkeypatch.setattr(module, "MARGIN_S", 0.0)
    for work in (start, generation):
        asyncio.run(work())


def test_a_replacement_that_hangs_as_it_starts_is_replaced_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        pool = FakePool(limits=Limits(start_s=0.05))
        await pool.start()
        create, hanging = pool._create, iter([True, True, False])
        pool._create = lambda: (
            setattr(engine := create(), "start", Method(hang) if next(hanging) else engine.start) or engine
        )
        pool.engines[0].dead = True
        with pytest.raises(ray.exceptions.RayActorError):
            await generate(pool, at_least=0)
        assert await generate(pool, at_least=0) == (DRAWN, 0)
        assert [engine.killed for engine in pool.engines] == [True, True, True, False]

    monkeypatch.setattr(supervision, "FIRST_PAUSE_S", 0.0)
    asyncio.run(work())


def test_a_death_at_the_start_is_one_line() -> None:
    async def work() -> None:
        pool = FakePool()
        create = pool._create
        pool._create = lambda: setattr(engine := create(), "dead", True) or engine
        with pytest.raises(RolloutPoolLost, match=r"^rollout engine 0 died while starting; the logs"):
            await pool.start()

    asyncio.run(work())


def test_the_groups_of_a_step_are_shared_over_the_engines_whichever_is_updated_first() -> None:
    async def work() -> None:
        pool = FakePool(2)
        await pool.start()
        released = asyncio.Event()

        async def slowly(*_: Any) -> None:
            await asyncio.sleep(0.05)

        async def until_released(*_: Any) -> tuple[str, int]:
            await released.wait()
            return DRAWN, 1

        pool.engines[1].update_weights = Method(slowly)
        for engine in pool.engines:
            engine.generate = Method(until_released)
        pool.update(1)
        groups = [asyncio.create_task(generate(pool, at_least=1)) for _ in range(8)]
        await pool.settled()
        await asyncio.sleep(0)
        assert pool.take_begun() == [4, 4]
        assert pool.take_done() == [(0.0, 0), (0.0, 0)]
        released.set()
        await asyncio.gather(*groups)
        done = pool.take_done()
        assert [tokens for _, tokens in done] == [4 * 5, 4 * 5]
        assert all(0 < seconds < 60 for seconds, _ in done)
        assert pool.take_done() == [(0.0, 0), (0.0, 0)]
        assert pool.update_s == 0
        pool.update(2)
        assert 0.04 < pool.update_s < 60, "of the slower engine, in the publication before"
        await pool.settled()

    asyncio.run(work())


def test_a_caller_that_is_cancelled_leaves_no_load_behind() -> None:
    async def work() -> None:
        pool = FakePool()
        await pool.start()
        waiting = asyncio.create_task(generate(pool, at_least=1))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        pool.engines[0].generate = Method(hang)
        running = asyncio.create_task(generate(pool, at_least=0))
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        (load,) = pool._dispatcher.engines
        assert (load.groups, load.sequences, load.tokens, len(pool._dispatcher.queue)) == (0, 0, 0, 0)
        assert pool.abandoned == 1  # only one had reached an engine

    asyncio.run(work())


def test_a_long_queue_that_moves_is_no_stall() -> None:
    async def work() -> None:
        pool = FakePool(limits=Limits(stall_s=0.6))
        await pool.start()
        pool._dispatcher.engines[0].most_sequences = 1

        async def slowly(*_: Any) -> tuple[str, int]:
            await asyncio.sleep(0.2)
            return DRAWN, 0

        pool.engines[0].generate = Method(slowly)
        assert len(await asyncio.gather(*(generate(pool, at_least=0) for _ in range(6)))) == 6

    asyncio.run(work())
