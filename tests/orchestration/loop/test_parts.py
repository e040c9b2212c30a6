"""The start of a run's parts, with fakes in place of actors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from fake_engines import Method

from evidence.limits import Limits
from evidence.supervision import actor_class
from orchestration.cluster_settings import ClusterConfig
from orchestration.config import load_config
from orchestration.loop import parts
from orchestration.settings import TrainConfig
from orchestration.supervision.learner_gang import LearnerGang
from orchestration.supervision.rollout_pool import RolloutPoolLost
from orchestration.supervision.waiting import ActorLost
from orchestration.supervision.weights import Publication, PublishedWeights, WeightsLost

CONFIG = "configs/experiment/quickstart.yaml"


def test_each_part_is_announced_while_all_start_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    @contextlib.contextmanager
    def awaiting(part: str) -> Iterator[None]:
        events.append(f"begin {part}")
        yield
        events.append(f"end {part}")

    async def start() -> Any:
        loop, ranks_started = asyncio.get_running_loop(), asyncio.Event()

        async def after_the_ranks() -> None:
            async with asyncio.timeout(10):
                await ranks_started.wait()

        def learner(*_: Any) -> str:
            loop.call_soon_threadsafe(ranks_started.set)
            return "ranks"

        for name, fake in (
            ("RolloutPool", lambda *_: SimpleNamespace(start=after_the_ranks)),
            ("make_referee", lambda *_: SimpleNamespace(start=after_the_ranks)),
            ("Learner", learner),
        ):
            monkeypatch.setattr(parts, name, fake)
        return await parts.start_parts(load_config(TrainConfig, CONFIG, []), SimpleNamespace(banned_ids=()), 8)

    actor = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda full_every: "weights"))
    context = SimpleNamespace(get_job_id=lambda: "1", gcs_address="127.0.0.1:1")
    monkeypatch.setattr(parts.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(parts, "actor_class", lambda _: actor)
    monkeypatch.setattr(parts, "FrameStore", lambda *_, **__: None)
    monkeypatch.setattr(parts, "awaiting", awaiting)
    run_parts = asyncio.run(start())
    assert (run_parts.learner, run_parts.weights.actor) == ("ranks", "weights")
    names = ("rollout engines", "referee", "learner ranks")
    assert events[:3] == [f"begin {name}" for name in names]
    assert sorted(events[3:]) == sorted(f"end {name}" for name in names)


@pytest.mark.parametrize("colocated", [False, True])
def test_on_gpus_the_ranks_are_placed_first_and_parts_that_share_a_gpu_load_one_by_one(colocated: bool) -> None:
    events: list[str] = []

    def make_learner(placed: Any) -> str:
        time.sleep(0.05)
        events.append("ranks placed")
        placed()
        time.sleep(0.2)
        events.append("ranks loaded")
        return "ranks"

    def start(part: str) -> Any:
        async def started() -> None:
            events.append(part)
            await asyncio.sleep(0.01)
            events.append(f"{part} loaded")

        return started

    one = {"gpus_per_engine": 0.3} if colocated else {"gpus_per_engine": 1.0}
    cluster = ClusterConfig(gpus_per_rank=1, colocated=colocated, **one)
    assert asyncio.run(parts._started(cluster, start("engines"), start("referee"), make_learner)) == "ranks"
    if colocated:
        loads = ["ranks placed", "ranks loaded", "engines", "engines loaded", "referee", "referee loaded"]
        assert events == loads
    else:
        assert events[0] == "ranks placed"
        assert events[-1] == "ranks loaded", "engines need not wait for more than the placement"


@ray.remote(num_cpus=0)
class Rank:
    """Fails or dies while its weights are collected."""

    def weight_buckets(self, version: int, dies: bool = False) -> Iterator[Any]:
        if dies:
            os._exit(1)
        yield b"header"
        raise RuntimeError("connection closed by peer")


@ray.remote(num_cpus=0)
class FakeWeights:
    async def publish(self, version: int, ranks: list[Any], limit_s: float, attempt: int) -> None:
        calls = [
            rank.weight_buckets.options(num_returns="streaming").remote(version, n == 1) for n, rank in enumerate(ranks)
        ]
        for call in calls:
            async for ref in call:
                await ref


def test_the_rank_that_died_while_publishing_is_named(ray_cluster: Any) -> None:
    ranks = [actor_class(Rank).remote() for _ in range(2)]
    gang = LearnerGang.__new__(LearnerGang)  # without starting ranks of its own
    gang.ranks = ranks
    pool = SimpleNamespace(settled=lambda: asyncio.sleep(0))
    weights = actor_class(FakeWeights).remote()
    published = PublishedWeights(weights, Limits())
    pipeline, learner = SimpleNamespace(rollout_pool=pool), SimpleNamespace(gang=gang)
    run_parts = parts.Parts(pipeline, learner, published, None, None)  # type: ignore[arg-type]
    try:
        with pytest.raises(ActorLost, match=r"^learner rank 1 died while publishing weights 3; the logs"):
            asyncio.run(run_parts.publish(3, 60.0))
    finally:
        for actor in (*ranks, weights):
            ray.kill(actor)


class FakeWeightsActor:
    """The weights actor in this process. Killed, it is another one without weights; `dies`: how many publications kill
    it; `away`: how many calls fail until it is started again."""

    def __init__(self) -> None:
        self.newest: int | None = None
        self.published: list[tuple[int, int]] = []  # version, attempt
        self.dies = self.away = 0
        self.wants_full = False
        self.publish, self.latest, self.drop = Method(self._publish), Method(self._latest), Method(self._drop)
        self.full_wanted = Method(self._full_wanted)

    def kill(self) -> None:
        self.newest, self.away = None, 2

    async def _publish(self, version: int, ranks: list[Any], limit_s: float, attempt: int) -> Publication:
        await self._answer()
        if self.newest is not None and version <= self.newest:
            raise ValueError(f"weight version {version} is not above {self.newest}")
        self.published.append((version, attempt))
        if self.dies:
            self.dies -= 1
            self.kill()
            raise ray.exceptions.RayActorError
        self.newest = version
        forced, self.wants_full = self.wants_full, False
        return Publication(1.0 if forced else 0.25, forced)

    async def _drop(self, mirrors: bool) -> None:
        await self._answer()
        self.newest = None

    async def _latest(self) -> int | None:
        await self._answer()
        return self.newest

    async def _full_wanted(self) -> bool:
        return self.wants_full

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        if self.away:
            self.away -= 1
            raise ray.exceptions.RayActorError


class FakePool:
    """Records the versions that engines are told to load."""

    unloadable: str | None = None

    def __init__(self) -> None:
        self.updates: list[int] = []

    async def settled(self) -> None: ...

    def update(self, version: int) -> None:
        self.updates.append(version)
        self.unloadable = None


@pytest.fixture
def lossy(monkeypatch: pytest.MonkeyPatch) -> tuple[parts.Parts, FakeWeightsActor, Any]:
    """Parts with a weights actor that can die, and their pool."""
    actor, pool = FakeWeightsActor(), FakePool()
    monkeypatch.setattr(ray, "kill", lambda actor, no_restart: actor.kill())
    monkeypatch.setattr("orchestration.supervision.weights.RETRY_S", 0.001)
    monkeypatch.setattr("evidence.supervision.FIRST_PAUSE_S", 0.0)
    published = PublishedWeights(actor, Limits(heartbeat_s=0.04, restarts_per_hour=3))
    learner = SimpleNamespace(gang=SimpleNamespace(ranks=[], dead=list))
    pipeline = SimpleNamespace(rollout_pool=pool)
    return parts.Parts(pipeline, learner, published, None, None), actor, pool  # type: ignore[arg-type]


def test_a_publication_during_which_the_weights_actor_dies_is_repeated(lossy: Any) -> None:
    run_parts, actor, pool = lossy

    async def work() -> None:
        actor.dies = 2
        await run_parts.publish(1, 60.0)
        await run_parts.publish(2, 60.0)

    asyncio.run(work())
    assert actor.published == [(1, 1), (1, 2), (1, 3), (2, 4)], "the ranks can tell the attempts apart"
    assert pool.updates == [1, 2]


def test_weights_that_died_with_their_actor_are_noticed_and_published_again(lossy: Any) -> None:
    run_parts, actor, pool = lossy

    async def work() -> None:
        lost, wakings = asyncio.Event(), []

        def wake() -> None:
            wakings.append(None)
            lost.set()

        run_parts.watch_weights(wake)
        await asyncio.sleep(0.05)
        assert not wakings, "nothing is published yet, so nothing was lost"
        await run_parts.publish(1, 60.0)
        await run_parts.republish_if_lost(1)
        assert pool.updates == [1]
        actor.kill()
        await asyncio.wait_for(lost.wait(), 2)
        await asyncio.sleep(0.1)
        assert len(wakings) == 1
        await run_parts.republish_if_lost(2)  # two steps further, as with publish_every = 3
        await run_parts.republish_if_lost(2)
        assert (pool.updates, actor.newest) == ([1, 2], 2)
        lost.clear()
        actor.kill()
        await asyncio.wait_for(lost.wait(), 2)
        await run_parts.republish_if_lost(2)
        assert (pool.updates, actor.newest) == ([1, 2, 2], 2)

    asyncio.run(work())


def test_a_weights_actor_that_is_silent_is_restarted(lossy: Any) -> None:
    run_parts, actor, pool = lossy

    async def silent() -> None:
        await asyncio.sleep(60)

    async def work() -> None:
        lost = asyncio.Event()
        await run_parts.publish(1, 60.0)
        answers, actor.latest = actor.latest, Method(silent)
        kill = actor.kill
        actor.kill = lambda: (setattr(actor, "latest", answers), kill())
        run_parts.watch_weights(lost.set)
        await asyncio.wait_for(lost.wait(), 2)
        await run_parts.republish_if_lost(1)

    asyncio.run(work())
    assert pool.updates == [1, 1]


def test_a_weights_actor_that_keeps_dying_ends_the_run(lossy: Any) -> None:
    run_parts, actor, _ = lossy
    actor.dies = 9
    message = (
        r"^the weights actor died while publishing weights 1; .*, more often than limits.restarts_per_hour allows$"
    )
    with pytest.raises(WeightsLost, match=message):
        asyncio.run(run_parts.publish(1, 60.0))
    assert len(actor.published) == 4


def test_weights_that_no_engine_can_load_are_published_again_once(lossy: Any) -> None:
    run_parts, actor, pool = lossy

    async def work() -> None:
        await run_parts.publish(1, 60.0)
        pool.unloadable = "WeightsRefused: version 1: CorruptBucket: bucket 3"
        await run_parts.republish_if_lost(1)
        assert (pool.updates, actor.published) == ([1, 1], [(1, 1), (1, 2)])
        pool.unloadable = "WeightsRefused: version 1: CorruptBucket: bucket 3"
        with pytest.raises(RolloutPoolLost, match=r"^no rollout engine can load weights 1, published twice: .* 3$"):
            await run_parts.republish_if_lost(1)

    asyncio.run(work())


def test_engines_that_refuse_because_the_weights_actor_restarts_are_no_reason_to_drop_its_weights(lossy: Any) -> None:
    run_parts, actor, pool = lossy

    async def work() -> None:
        await run_parts.publish(1, 60.0)
        pool.unloadable = "WeightsRefused: version 1: ActorUnavailableError"
        actor.kill()
        for _ in range(3):
            await run_parts.republish_if_lost(1)
            await run_parts.weights.check()
        await run_parts.republish_if_lost(1)
        assert pool.updates == [1, 1]
        assert run_parts._dropped is None

    asyncio.run(work())


def test_weights_that_a_mirror_cannot_follow_are_published_again_in_full(lossy: Any) -> None:
    run_parts, actor, pool = lossy

    def sent() -> tuple[float, float]:
        metrics = run_parts.weights.metrics
        return metrics["weights/sent"], metrics["weights/forced"]

    async def work() -> None:
        wanted = asyncio.Event()
        run_parts.watch_weights(wanted.set)
        await run_parts.publish(1, 60.0)
        await asyncio.sleep(0.05)
        await run_parts.republish_if_lost(1)
        assert (pool.updates, sent()) == ([1], (0.25, 0))
        actor.wants_full = True
        await asyncio.wait_for(wanted.wait(), 2)
        for _ in range(2):
            await run_parts.republish_if_lost(1)
            await run_parts.weights.check()
        assert (pool.updates, sent()) == ([1, 1], (1.0, 1))
        assert 0 < run_parts.weights.metrics["weights/publish_s"] < 60

    asyncio.run(work())
