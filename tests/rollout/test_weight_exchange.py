"""Weights from learner ranks through the object store into a running engine."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray
from ray._private.internal_api import node_stats
from safetensors.numpy import load_file, save_file
from vllm_cores import cores_of

from evidence.manifest import Bucket, Packed, TensorEntry
from orchestration.supervision.weights import IncompleteWeights, UnknownVersion, assemble
from rollout.actor import RolloutActor
from rollout.engine import Engine, EngineConfig, WeightsRefused

# Ray's workers cannot import a test module.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.slow
TOLERANCE = 1e-5
RANKS = 2
TIMEOUT_S = 60.0


def perturbed(folder: Path, noise: int) -> dict[str, np.ndarray]:
    """The language model's tensors plus noise from seed `noise`; 0 adds none. The frozen vision tower is not sent."""
    rng = np.random.default_rng(noise)
    tensors = {name: t for name, t in sorted(load_file(folder / "model.safetensors").items()) if "visual" not in name}
    if noise == 0:
        return tensors
    return {name: t + rng.normal(0, 0.02, t.shape).astype(t.dtype) for name, t in tensors.items()}


@ray.remote(num_cpus=0)
class Rank:
    """The sending side of a learner rank. `fault` names the fault in what it yields."""

    def __init__(self, folder: Path, rank: int):
        self.folder, self.rank, self.noise, self.fault = folder, rank, 0, ""

    def prepare(self, noise: int, fault: str = "") -> None:
        self.noise, self.fault = noise, fault

    def weight_buckets(self, version: int, **_: Any) -> Iterator[Bucket | np.ndarray]:
        layers = itertools.groupby(perturbed(self.folder, self.noise).items(), lambda item: item[0].split(".")[:4])
        buckets = [dict(items) for _, items in layers]
        for index in range(self.rank, len(buckets), RANKS):
            if self.fault == "missing" and index == 1:
                buckets[index].popitem()
            packed = Packed.of(buckets[index])
            header, data = packed.bucket(index, len(buckets)), packed.data
            if self.fault == "corrupt" and index == 1:
                data[-1] ^= 1
            if self.fault == "dies" and index == 3:
                raise OSError("the rank died")
            yield header
            if self.fault == "dies between header and bytes" and index == len(buckets) - 1:
                raise OSError("the rank died")
            yield data


@pytest.fixture(scope="module")
def ranks(ray_cluster: Any, tiny_model: Path) -> list[Any]:
    return [Rank.remote(tiny_model, rank) for rank in range(RANKS)]


@pytest.fixture(scope="module")
def publish(ranks: list[Any], weights_actor: Any) -> Callable[..., int]:
    """Publishes the weights with noise from seed `noise` as the next version and returns that version."""

    def publish(noise: int, fault: str = "") -> int:
        version = (ray.get(weights_actor.latest.remote()) or 0) + 1
        ray.get([rank.prepare.remote(noise, fault) for rank in ranks], timeout=TIMEOUT_S)
        ray.get(weights_actor.publish.remote(version, ranks, TIMEOUT_S), timeout=TIMEOUT_S)
        return version

    return publish


@pytest.fixture(scope="module", autouse=True)
def restored(engine: Engine, run: Callable, publish: Callable) -> Iterator[None]:
    yield
    run(engine.update_weights(publish(0)))


def test_an_update_in_flight_splits_version_spans(
    engine: Engine, run: Callable, publish: Callable, video_prompt: tuple
) -> None:
    prompt, frames = video_prompt
    before, after = engine.version, publish(1)

    async def update_meanwhile() -> Any:
        for _ in range(2):  # the first call may include one-time work
            start = time.monotonic()
            await engine.generate(prompt, frames, 8, 1.0, 32, seed=4)
        generation = asyncio.create_task(engine.generate(prompt, frames, 8, 1.0, 1500, seed=4))
        await asyncio.sleep(time.monotonic() - start)  # until the first tokens are drawn
        await engine.update_weights(after)
        return await generation

    trajectories = run(update_meanwhile())
    split = [t for t in trajectories if len(t.version_spans) == 2]
    assert split, "no completion spans the update"
    for trajectory in split:
        (old, start, middle), (new, resumed, end) = trajectory.version_spans
        assert (old, start, new, end) == (before, 0, after, len(trajectory.token_ids))
        assert 0 < middle == resumed < end
    assert run(engine.generate(prompt, frames, 1, 1.0, 4, seed=0))[0].version_spans[0][0] == after


def test_an_updated_engine_equals_a_fresh_one(
    engine: Engine,
    run: Callable,
    publish: Callable,
    video_prompt: tuple,
    tiny_model: Path,
    encoder: Any,
    tmp_path: Path,
) -> None:
    """The prompt is longer than a KV block and also ran before the update; tied embeddings are among the changes."""
    prompt, frames = video_prompt
    old = run(engine.generate(prompt, frames, 4, 1.0, 64, seed=9))
    run(engine.update_weights(publish(2)))
    updated = run(engine.generate(prompt, frames, 4, 1.0, 64, seed=9))

    folder = tmp_path / "new"
    shutil.copytree(tiny_model, folder)
    frozen = load_file(tiny_model / "model.safetensors")
    save_file(frozen | perturbed(tiny_model, 2), folder / "model.safetensors", metadata={"format": "pt"})

    actor = RolloutActor.remote(EngineConfig(str(folder)), encoder.banned_ids)
    ray.get(actor.start.remote(engine.version), timeout=300)
    request = actor.generate.remote(prompt, ray.put(frames), 4, 1.0, 64, seed=9, timeout_s=TIMEOUT_S)
    fresh, oldest = ray.get(request, timeout=TIMEOUT_S)
    assert ray.get(actor.ping.remote(), timeout=TIMEOUT_S) == oldest == engine.version
    for ours, theirs in zip(updated, fresh, strict=True):
        assert np.array_equal(ours.token_ids, theirs.token_ids)
        assert np.abs(ours.logprobs - theirs.logprobs).max() < TOLERANCE
        assert ours.version_spans == theirs.version_spans
    assert not np.array_equal(old[0].token_ids, updated[0].token_ids)
    kill_and_expect_no_engine_left(actor)


def kill_and_expect_no_engine_left(actor: Any) -> None:
    """A killed actor must not leave an engine process behind, which would hold its memory forever."""
    process = psutil.Process(ray.get(actor.__ray_call__.remote(lambda _: os.getpid())))
    children = process.children(recursive=True)
    assert children, "the engine runs in a process of its own"
    ray.kill(actor)
    psutil.wait_procs([process, *children], timeout=TIMEOUT_S)
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(("fault", "complaint"), [("corrupt", "CorruptBucket: bucket 1"), ("missing", "1 tensors are")])
def test_a_faulty_weight_set_is_never_loaded(
    engine: Engine, run: Callable, publish: Callable, video_prompt: tuple, fault: str, complaint: str
) -> None:
    prompt, frames = video_prompt
    version = engine.version
    before = run(engine.generate(prompt, frames, 1, 1.0, 32, seed=1))[0]
    with pytest.raises(WeightsRefused, match=complaint):
        run(engine.update_weights(publish(3, fault)))
    with pytest.raises(ValueError, match="not above"):
        run(engine.update_weights(version))
    after = run(engine.generate(prompt, frames, 1, 1.0, 32, seed=1))[0]
    assert engine.version == version
    assert np.array_equal(before.token_ids, after.token_ids)
    assert np.abs(before.logprobs - after.logprobs).max() < TOLERANCE
    assert after.version_spans == before.version_spans


def test_a_version_is_complete_or_absent(weights_actor: Any, publish: Callable, ranks: list[Any]) -> None:
    last = publish(4)
    for fault in ("dies", "dies between header and bytes"):
        with pytest.raises(OSError, match="the rank died"):
            publish(4, fault)
    assert ray.get(weights_actor.latest.remote()) == last
    with pytest.raises(ValueError, match="not above"):
        ray.get(weights_actor.publish.remote(last, ranks, TIMEOUT_S))
    newest = publish(4)
    publish(4)
    assert ray.get(weights_actor.manifest.remote(newest)).version == newest
    with pytest.raises(UnknownVersion, match="only"):
        ray.get(weights_actor.manifest.remote(last))


def test_weights_outlive_the_ranks_that_made_them(
    engine: Engine, run: Callable, tiny_model: Path, weights_actor: Any, publish: Callable
) -> None:
    version = publish(5) + 100
    mortal = [Rank.remote(tiny_model, rank) for rank in range(RANKS)]
    ray.get(weights_actor.publish.remote(version, mortal, TIMEOUT_S))
    for rank in mortal:
        ray.kill(rank)
    time.sleep(0.5)
    run(engine.update_weights(version))
    assert engine.version == version


def test_the_store_does_not_grow_over_fifty_versions(engine: Engine, run: Callable, publish: Callable) -> None:
    def used() -> int:
        node = ray.nodes()[0]
        return node_stats(node["NodeManagerAddress"], node["NodeManagerPort"]).store_stats.object_store_bytes_used

    def engine_memory() -> int:
        cores = cores_of(psutil.Process())
        assert cores
        return sum(core.memory_full_info().uss for core in cores)

    for noise in range(3):
        run(engine.update_weights(publish(noise)))
    time.sleep(1.0)  # freed objects leave the count a moment later
    early, early_memory = used(), engine_memory()
    for noise in range(50):
        run(engine.update_weights(publish(noise)))
    assert early > 0
    until = time.monotonic() + TIMEOUT_S
    while used() > 1.1 * early:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert engine_memory() - early_memory < 60 * 2**20, "the engine keeps memory of old versions, 6 MB each"


def test_an_incomplete_set_of_buckets_is_refused() -> None:
    def bucket(index: int, name: str) -> Bucket:
        return Bucket(index, 2, (TensorEntry(name, (1,), "float32", 0, 4),), 4, 0)

    assert assemble(3, [bucket(1, "b"), bucket(0, "a")]).names == {"a", "b"}
    gaps = [[], [bucket(0, "a"), bucket(2, "b")], [bucket(1, "a")], [bucket(0, "a")]]
    for faulty in (*gaps, [bucket(0, "a"), bucket(1, "a")], [bucket(0, "a"), replace(bucket(1, "b"), total=3)]):
        with pytest.raises(IncompleteWeights):
            assemble(3, faulty)
