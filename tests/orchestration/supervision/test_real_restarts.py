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
    """A learner of one rank, which publishes the model's own weights in one bucket."""

    def __init__(self, folder: Path):
        self.folder = folder

    def weight_buckets(self, version: int, attempt: int = 0) -> Iterator[Any]:
        tensors = load_file(self.folder / "model.safetensors")
        packed = Packed.of({name: t for name, t in tensors.items() if "visual" not in name})
        yield packed.bucket(0, 1)
        yield packed.data


@pytest.fixture(scope="module")
def parts(ray_cluster: Any, run: Callable[..., Any], tiny_model: Path, encoder: Any) -> Iterator[Parts]:
    """An engine, a weights actor and a rank."""
    limits = Limits(heartbeat_s=HEARTBEAT_S)
    weights = PublishedWeights(WeightsActor.options(name=NAME).remote(), limits)
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
