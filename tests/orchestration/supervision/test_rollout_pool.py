"""The pool of rollout engines with actors that live in this process: updates, deaths, and the wait for both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from evidence.limits import Limits
from orchestration.supervision import rollout_pool as module
from orchestration.supervision.rollout_pool import RolloutPool, RolloutPoolLost
from rollout.engine_setup import EngineConfig


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
    """`size` engines, which live at first. `engines`: all that were created. `stillborn`: successors die as they
    start."""

    def __init__(self, size: int = 1, stillborn: bool = False, limits: Limits | None = None):
        super().__init__(EngineConfig("model"), (), None, size, 0.0, limits or Limits())  # type: ignore[arg-type]
        self.engines: list[FakeEngine] = []

        def create() -> FakeEngine:
            self.engines.append(FakeEngine(dead=stillborn and len(self.engines) >= size))
            return self.engines[-1]

        self._create = create


@pytest.fixture(autouse=True)
def kill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.ray, "kill", lambda engine: setattr(engine, "killed", True))


def generate(pool: RolloutPool, at_least: int) -> Coroutine[Any, Any, Any]:
    prompt: Any = SimpleNamespace(token_ids=range(9))
    return pool.generate(lambda version: version >= at_least, prompt, None, 1, 1.0, 8, 0)  # type: ignore[arg-type]


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


async def hang(*_: Any) -> None:
    await asyncio.sleep(1000)


def test_what_an_engine_that_hangs_was_doing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def start() -> None:
        pool = FakePool(2, limits=Limits(start_s=0.05))
        create = pool._create
        pool._create = lambda: setattr(engine := create(), "start", Method(hang)) or engine
        with pytest.raises(RolloutPoolLost, match=r"^rollout engine [01] did not .* 0.05 s while loading the model \("):
            await pool.start()

    async def update() -> None:
        pool = FakePool(2, limits=Limits(update_s=0.05))
        await pool.start()
        pool.engines[1].update_weights = Method(hang)
        pool.update(1)
        waiting = asyncio.create_task(generate(pool, at_least=2))
        message = r"^rollout engine 1 did not answer within 0.05 s while loading weights 1 \(limits.update_s\)$"
        with pytest.raises(RolloutPoolLost, match=message):
            await pool.settled()
        with pytest.raises(RolloutPoolLost, match=message):
            await waiting

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
    for work in (start, update, generation):
        asyncio.run(work())


def test_a_death_at_the_start_is_one_line() -> None:
    async def work() -> None:
        pool = FakePool()
        create = pool._create
        pool._create = lambda: setattr(engine := create(), "dead", True) or engine
        with pytest.raises(RolloutPoolLost, match=r"^rollout engine 0 died while loading the model; the logs"):
            await pool.start()

    asyncio.run(work())


def test_the_groups_of_a_step_are_shared_over_the_engines_whichever_is_updated_first() -> None:
    async def work() -> None:
        pool = FakePool(2)
        await pool.start()
        released = asyncio.Event()

        async def slowly(version: int) -> None:
            await asyncio.sleep(0.05)

        async def until_released(*_: Any) -> tuple[str, int]:
            await released.wait()
            return "trajectories", 1

        pool.engines[1].update_weights = Method(slowly)
        for engine in pool.engines:
            engine.generate = Method(until_released)
        pool.update(1)
        groups = [asyncio.create_task(generate(pool, at_least=1)) for _ in range(8)]
        await pool.settled()
        await asyncio.sleep(0)
        assert pool.take_begun() == [4, 4]
        released.set()
        await asyncio.gather(*groups)

    asyncio.run(work())


def test_the_reply_of_a_replaced_engine_does_not_make_its_successor_current() -> None:
    async def work() -> None:
        pool = FakePool()
        await pool.start()
        first, arrives = pool.engines[0], asyncio.Event()

        async def late(version: int) -> None:
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
        assert await generate(pool, at_least=1) == ("trajectories", 1)
        assert pool.engines[1].loads == [1], "the successor was given the weights itself"

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

    asyncio.run(work())


def test_an_update_that_takes_much_longer_than_the_last_ones_is_overdue() -> None:
    async def work() -> None:
        pool = FakePool(2)
        await pool.start()
        for engine, seconds in zip(pool.engines, (0.02, 0.5)):

            async def slowly(version: int, seconds: float = seconds) -> None:
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


def test_a_long_queue_that_moves_is_no_stall() -> None:
    async def work() -> None:
        pool = FakePool(limits=Limits(stall_s=0.2))
        await pool.start()
        pool._dispatcher.engines[0].most_sequences = 1

        async def slowly(*_: Any) -> tuple[str, int]:
            await asyncio.sleep(0.1)
            return "trajectories", 0

        pool.engines[0].generate = Method(slowly)
        assert len(await asyncio.gather(*(generate(pool, at_least=0) for _ in range(6)))) == 6

    asyncio.run(work())
