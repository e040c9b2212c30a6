"""An engine set aside for evaluation: what training does meanwhile, and how deaths end it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from fake_engines import FakeEngine, FakePool, Method, generate, until

from evidence.limits import Limits
from orchestration.supervision.aside import Aside, Unmeasurable


@pytest.fixture(autouse=True)
def kill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "kill", lambda engine: setattr(engine, "killed", True))


def complete(aside: Aside) -> Coroutine[Any, Any, Any]:
    prompt: Any = SimpleNamespace(token_ids=range(9))
    return aside.complete(prompt, None, 0.0, 8, 0)  # type: ignore[arg-type]


def draws(engine: FakeEngine) -> None:
    """Let an engine answer with a trajectory of the version that it holds, as long as it lives."""

    async def trajectory(*_: Any) -> Any:
        await engine._answer()
        version = engine.loads[-1] if engine.loads else 0
        return (SimpleNamespace(token_ids=[7], version_spans=((version, 0, 1),)),), version

    engine.generate = Method(trajectory)


async def started(size: int = 2, limits: Limits | None = None) -> tuple[FakePool, Aside, FakeEngine, FakeEngine]:
    """A pool of which all engines hold version 1; the engine that is set aside, and the last of the others."""
    pool = FakePool(size, limits=limits)
    create = pool._create

    def drawing() -> FakeEngine:
        draws(engine := create())
        return engine

    pool._create = drawing
    await pool.start()
    pool.update(1)
    await pool.settled()
    aside = pool.set_aside()
    number = pool._engines.index(aside.engine)
    return pool, aside, pool.engines[number], pool.engines[(number + 1) % size]


def drawn(version: int) -> Any:
    return (SimpleNamespace(token_ids=[7], version_spans=((version, 0, 1),)),), version


def test_it_takes_no_group_and_no_update_and_holds_nothing_up_and_catches_up_afterwards() -> None:
    async def work() -> None:
        pool, aside, engine, other = await started()
        for version in (2, 3):
            pool.update(version)
            await asyncio.wait_for(pool.settled(), 1)
        groups = [generate(pool, at_least=0) for _ in range(6)]
        assert [found[1] for found in await asyncio.gather(*groups)] == 6 * [3]
        assert pool.take_begun() == [6], "training does not count an engine that is set aside"
        assert (await complete(aside)).version_spans == ((1, 0, 1),)
        assert (engine.loads, other.loads) == ([1], [1, 2, 3])
        (facts,) = [facts for facts in pool.engine_facts() if facts.evaluates is not None]
        assert (facts.version, facts.loads) == (1, None), "it does not load what it is kept from"

        loads, update = asyncio.Event(), engine._update

        async def slowly(version: int, fetch_s: float) -> None:
            await loads.wait()
            await update(version, fetch_s)

        engine.update_weights = Method(slowly)
        aside.give_back()
        await asyncio.wait_for(pool.settled(), 1)
        assert (await asyncio.gather(*(generate(pool, at_least=0) for _ in range(4))))[0] == drawn(3)
        assert pool.take_begun() == [0, 4], "it is not used before it holds the newest version"
        loads.set()
        await until(lambda: aside.engine.live)
        assert engine.loads == [1, 3]

    asyncio.run(work())


def test_one_that_dies_goes_on_while_its_version_is_the_published_one() -> None:
    async def work() -> None:
        pool, aside, engine, _ = await started()
        engine.dead = True
        with pytest.raises(ray.exceptions.RayActorError):
            await complete(aside)
        assert (await aside.unless_lost(complete(aside))).version_spans == ((1, 0, 1),)
        assert pool.engines[-1].loads == [1]

    asyncio.run(work())


def test_one_that_dies_later_is_lost_to_the_evaluation_and_restarts_for_training() -> None:
    async def work() -> None:
        pool, aside, engine, _ = await started()
        pool.update(2)
        measuring = asyncio.create_task(aside.unless_lost(asyncio.sleep(60)))
        await asyncio.sleep(0)
        engine.dead = True
        with pytest.raises(ray.exceptions.RayActorError):
            await complete(aside)
        with pytest.raises(Unmeasurable, match=r"^rollout engine 0 died, and weights 1 are gone$"):
            await asyncio.wait_for(measuring, 1)
        await until(lambda: aside.engine.live)
        assert pool.engines[-1].loads == [2]
        assert pool._dispatcher.engines == pool._engines

    asyncio.run(work())


def test_it_gives_way_when_no_other_engine_runs() -> None:
    async def work() -> None:
        pool, aside, _, other = await started()
        pool.update(2)
        await pool.settled()
        other.dead = True
        waiting = asyncio.create_task(generate(pool, at_least=2))
        with pytest.raises(ray.exceptions.RayActorError):
            await waiting
        with pytest.raises(Unmeasurable, match="no other rollout engine runs, and training needs this one"):
            await aside.unless_lost(asyncio.sleep(60))
        assert (await generate(pool, at_least=2))[1] == 2

    asyncio.run(work())


def test_the_last_engine_that_runs_is_not_set_aside_but_a_single_one_is() -> None:
    async def work() -> None:
        pool, aside, _, other = await started(limits=Limits(heartbeat_s=0.1))
        aside.give_back()
        other.dead = True
        pool._create = lambda: (engine := FakeEngine(), setattr(engine, "start", Method(forever)))[0]
        await until(lambda: not all(engine.running for engine in pool._engines))
        with pytest.raises(Unmeasurable, match="only one rollout engine runs, and training needs it"):
            pool.set_aside()
        pool.stop()
        pool, aside, _, _ = await started(size=1)
        assert (await complete(aside)).version_spans == ((1, 0, 1),)

    async def forever(*_: Any) -> None:
        await asyncio.sleep(60)

    asyncio.run(work())


def test_a_completion_of_two_versions_is_refused() -> None:
    async def work() -> None:
        _, aside, engine, _ = await started()

        async def updated(*_: Any) -> Any:
            return (SimpleNamespace(token_ids=range(5), version_spans=((1, 0, 3), (2, 3, 5))),), 1

        engine.generate = Method(updated)
        with pytest.raises(Unmeasurable, match=r"drawn by versions \[1, 2\], not by 1"):
            await complete(aside)

    asyncio.run(work())


def test_an_evaluation_begins_once_the_groups_on_its_engine_leave_room() -> None:
    async def work() -> None:
        pool, aside, engine, _ = await started()
        aside.give_back()
        answer, ends = engine.generate.remote, asyncio.Event()

        async def late(*arguments: Any) -> Any:
            await ends.wait()
            return await answer(*arguments)

        for each in pool._engines:
            each.most_sequences = 1
        for fake in pool.engines:
            fake.generate = Method(late)
        groups = [asyncio.create_task(generate(pool, at_least=1)) for _ in range(2)]
        await asyncio.sleep(0)
        aside = pool.set_aside()
        completion = asyncio.create_task(complete(aside))
        await asyncio.sleep(0.01)
        assert aside.engine.groups == 1
        ends.set()
        await asyncio.wait_for(completion, 1)
        await asyncio.gather(*groups)

    asyncio.run(work())
