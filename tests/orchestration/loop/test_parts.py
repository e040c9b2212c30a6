"""The start of a run's parts, with fakes in place of actors."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from evidence.supervision import actor_class
from orchestration.config import load_config
from orchestration.loop import parts
from orchestration.settings import TrainConfig
from orchestration.supervision.learner_gang import LearnerGang
from orchestration.supervision.waiting import ActorLost

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

    actor = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda: "weights"))
    context = SimpleNamespace(get_job_id=lambda: "1", gcs_address="127.0.0.1:1")
    monkeypatch.setattr(parts.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(parts, "actor_class", lambda _: actor)
    monkeypatch.setattr(parts, "FrameStore", lambda *_, **__: None)
    monkeypatch.setattr(parts, "awaiting", awaiting)
    assert asyncio.run(start()).learner == "ranks"
    names = ("rollout engines", "referee", "learner ranks")
    assert events[:3] == [f"begin {name}" for name in names]
    assert sorted(events[3:]) == sorted(f"end {name}" for name in names)


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
    async def publish(self, version: int, ranks: list[Any], limit_s: float) -> None:
        calls = [
            rank.weight_buckets.options(num_returns="streaming").remote(version, n == 1) for n, rank in enumerate(ranks)
        ]
        for call in calls:
            async for ref in call:
                await ref


def test_the_rank_that_died_while_publishing_is_named(ray_cluster: Any) -> None:
    ranks = [actor_class(Rank).remote() for _ in range(2)]
    gang = SimpleNamespace(ranks=ranks, dead=lambda: LearnerGang.dead(gang))
    pool = SimpleNamespace(settled=lambda: asyncio.sleep(0))
    weights = actor_class(FakeWeights).remote()
    run_parts = parts.Parts(SimpleNamespace(rollout_pool=pool), SimpleNamespace(gang=gang), weights, None, None)  # type: ignore[arg-type]
    try:
        with pytest.raises(ActorLost, match=r"^learner rank 1 died while publishing weights 3; the logs"):
            asyncio.run(run_parts.publish(3, 60.0))
    finally:
        for actor in (*ranks, weights):
            ray.kill(actor)
