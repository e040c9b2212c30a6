"""A real engine and a real weights actor: one is stopped, the other killed, and both come back with the weights."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import ray
from safetensors.numpy import load_file
from vllm_cores import cores_of

from evidence.limits import Limits
from evidence.manifest import Packed
from learner.sent_weights import SentWeights
from orchestration.loop.parts import Parts
from orchestration.supervision.rollout_pool import RolloutPool
from orchestration.supervision.weights import PublishedWeights, WeightsActor
from rollout.engine import EngineConfig, WeightStore

# Ray's workers cannot import a test module.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.slow
NAME = "weights of test_real_restarts"
HEARTBEAT_S = 20.0
TIMEOUT_S = 300.0


@ray.remote(num_cpus=0)
class Rank:
    """A learner of one rank, which publishes the model's weights in one bucket. The first element of each tensor
    changes with every version."""

    def __init__(self, folder: Path):
        self.folder, self.sent = folder, SentWeights()

    def weight_buckets(self, version: int, attempt: int, base: int | None, keep: bool) -> Iterator[Any]:
        tensors = {n: t for n, t in load_file(self.folder / "model.safetensors").items() if "visual" not in n}
        for tensor in tensors.values():
            tensor.reshape(-1)[0] += version
        yield from self.sent.send(version, base, [(0, 1, Packed.of(tensors))], keep)


@pytest.fixture(scope="module")
def parts(ray_cluster: Any, run: Callable[..., Any], tiny_model: Path, encoder: Any) -> Iterator[Parts]:
    """An engine, a weights actor that sends what changed, and a rank."""
    limits = Limits(heartbeat_s=HEARTBEAT_S)
    weights = PublishedWeights(WeightsActor.options(name=NAME).remote(full_every=100), limits)
    store = WeightStore(ray_cluster.get_runtime_context().gcs_address, "test", NAME)
    pool = RolloutPool(EngineConfig(str(tiny_model)), encoder.banned_ids, store, 1, 0.0, limits)
    run(pool.start())
    gang = SimpleNamespace(ranks=[Rank.remote(tiny_model)], dead=list)
    pipeline, learner = SimpleNamespace(rollout_pool=pool), SimpleNamespace(gang=gang)
    parts = Parts(pipeline, learner, weights, None, None)  # type: ignore[arg-type]
    yield parts
    if parts._watching is not None:
        parts._watching.cancel()
    pool.stop()
    ray.kill(weights.actor)


def generate(parts: Parts, video_prompt: tuple[Any, np.ndarray], version: int, tokens: int) -> Any:
    prompt, frames = video_prompt
    pool = parts.pipeline.rollout_pool
    return pool.generate(lambda v: v >= version, prompt, ray.put(frames), 2, 1.0, tokens, 0)


async def process(actor: Any) -> psutil.Process:
    return psutil.Process(await actor.__ray_call__.remote(lambda _: os.getpid()))


def test_weights_that_die_with_their_actor_are_published_again(
    parts: Parts, run: Callable[..., Any], video_prompt: tuple[Any, np.ndarray]
) -> None:
    async def work() -> None:
        await parts.publish(1, TIMEOUT_S)
        await generate(parts, video_prompt, 1, 4)
        (await process(parts.weights.actor)).kill()
        await parts.publish(2, TIMEOUT_S)
        _, oldest = await generate(parts, video_prompt, 2, 4)
        assert oldest == 2
        (await process(parts.weights.actor)).kill()
        parts.pipeline.rollout_pool.update(3)  # an engine that fetches while the weights are gone
        lost = asyncio.Event()
        parts.watch_weights(lost.set)
        await asyncio.wait_for(lost.wait(), TIMEOUT_S)
        await parts.republish_if_lost(3)
        _, oldest = await generate(parts, video_prompt, 3, 4)
        assert oldest == 3

    run(work())
    assert parts.pipeline.rollout_pool.refused_updates >= 1
    assert parts.pipeline.rollout_pool.restarts == 0


def test_a_mirror_that_dies_gets_all_weights(
    parts: Parts, run: Callable[..., Any], video_prompt: tuple[Any, np.ndarray]
) -> None:
    pool, weights = parts.pipeline.rollout_pool, parts.weights

    async def work() -> None:
        for version in (4, 5):
            await parts.publish(version, TIMEOUT_S)
            await generate(parts, video_prompt, version, 4)
        assert weights.share < 0.01
        mirror = await weights.actor.mirror.remote(ray.get_runtime_context().get_node_id())
        (await process(mirror)).kill()
        wanted = asyncio.Event()
        parts.watch_weights(wanted.set)
        await parts.publish(6, TIMEOUT_S)
        assert weights.share < 0.01, "that the mirror is gone is not known yet"
        await asyncio.wait_for(wanted.wait(), TIMEOUT_S)
        await parts.republish_if_lost(6)
        assert (weights.share, weights.forced) == (1.0, 1)
        _, oldest = await generate(parts, video_prompt, 6, 4)
        assert oldest == 6

    run(work())
    assert pool.restarts == 0


def test_an_engine_whose_process_is_stopped_is_replaced_and_leaves_nothing_behind(
    parts: Parts, run: Callable[..., Any], video_prompt: tuple[Any, np.ndarray]
) -> None:
    pool, restarts = parts.pipeline.rollout_pool, 0

    async def work() -> list[psutil.Process]:
        if pool.published == 0:
            await parts.publish(1, TIMEOUT_S)
        await generate(parts, video_prompt, pool.published, 4)
        actor = await process(pool._engines[0].supervised.actor)
        (core,) = cores_of(actor)
        nonlocal restarts
        restarts = pool.restarts  # on a busy machine, the engine may have missed a heartbeat before
        generation = asyncio.create_task(generate(parts, video_prompt, pool.published, 1500))
        await asyncio.sleep(0.5)
        core.send_signal(signal.SIGSTOP)
        with pytest.raises(ray.exceptions.RayActorError):
            await asyncio.wait_for(generation, 3 * HEARTBEAT_S)
        _, oldest = await asyncio.wait_for(generate(parts, video_prompt, pool.published, 4), TIMEOUT_S)
        assert oldest == pool.published
        return [actor, core]

    gone = run(work())
    _, alive = psutil.wait_procs(gone, timeout=10)
    assert not alive
    assert pool.restarts == restarts + 1
    assert "(limits.heartbeat_s)" in pool._engines[0].supervised.reason
