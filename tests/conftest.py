"""Shared fixtures: one tiny model, one local Ray and one vLLM engine (20 s to start) for all tests."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

# Two threads of torch take as long as one for tensors this small, and many times as long on a busy machine, where each
# waits for the other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The time of one example depends on how busy the machine is, not on the code.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

CORPUS = ("Frame 1 at 0.5s: which circle is red? The red circle moves slowly from the left to the right.",) * 3


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2.5-VL of 1.5M parameters."""
    from learner.model.tiny import create_tiny_model

    folder = tmp_path_factory.mktemp("tiny_model")
    create_tiny_model(folder, corpus=CORPUS)
    return folder


@pytest.fixture(scope="session")
def tiny_qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3-VL, with patches of 16 pixels like the published models."""
    from learner.model.tiny import TinySpec, create_tiny_model

    folder = tmp_path_factory.mktemp("tiny_qwen3")
    create_tiny_model(folder, TinySpec(family="qwen3_vl", patch=16), corpus=CORPUS)
    return folder


@pytest.fixture(scope="session", params=["tiny_model", "tiny_qwen3"])
def either_model(request: pytest.FixtureRequest) -> Path:
    """Runs a test for Qwen2.5-VL and for Qwen3-VL."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def either_encoder(either_model: Path) -> Any:
    from rollout.prompt import ChatEncoder

    return ChatEncoder(either_model)


@pytest.fixture(scope="session")
def encoder(tiny_model: Path) -> Any:
    from rollout.prompt import ChatEncoder

    return ChatEncoder(tiny_model)


@pytest.fixture(scope="session")
def run() -> Iterator[Callable]:
    """Runs a coroutine in the session's event loop, to which the shared engine belongs."""
    loop = asyncio.new_event_loop()
    yield loop.run_until_complete
    loop.close()


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    import ray

    ray.init(
        address="local",  # never connect to another cluster on this machine
        num_cpus=4,
        object_store_memory=300 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        namespace="test",
        runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}},
    )
    yield ray
    ray.shutdown()


@pytest.fixture(scope="session")
def weights_actor(ray_cluster: Any) -> Any:
    from orchestration.supervision.weights import WeightsActor

    return WeightsActor.options(name="weights").remote()


@pytest.fixture(scope="session")
def weight_store(ray_cluster: Any, weights_actor: Any) -> Any:
    from rollout.engine import WeightStore

    return WeightStore(ray_cluster.get_runtime_context().gcs_address, "test", "weights")


@pytest.fixture(scope="session")
def engine(tiny_model: Path, encoder: Any, run: Callable, weight_store: Any) -> Iterator[Any]:
    """An engine on `tiny_model`, connected to `weights_actor`. A test that changes its weights must restore them."""
    from rollout.engine import Engine, EngineConfig

    engine = run(Engine.start(EngineConfig(str(tiny_model), native_video=True), encoder.banned_ids, 0, weight_store))
    yield engine
    run(engine.stop())


@pytest.fixture(scope="session")
def video_prompt(encoder: Any) -> tuple[Any, np.ndarray]:
    """A prompt of 8 frames, longer than one KV block of 128 tokens, and its frames, uint8 [8, 56, 56, 3]."""
    frames = np.random.default_rng(0).integers(0, 256, (8, 56, 56, 3), np.uint8)
    parts = [part for i in range(8) for part in (f"Frame {i + 1} at {i / 2}s: ", (56, 56))]
    prompt = encoder.encode([*parts, "\nWhich circle is red, and where does it move? Think first, then answer."])
    assert len(prompt.token_ids) > 130
    return prompt, frames


@pytest.fixture(scope="module")
def decoder(ray_cluster: Any) -> Iterator[Any]:
    """One decoding process, shared by all frame stores without special settings."""
    from small_clips import stop

    from rollout.frames.decoder_pool import DecoderPool

    pool = DecoderPool(1, timeout_s=60, memory_bytes=2**30)
    yield pool
    stop(pool)


@pytest.fixture
def store(decoder: Any) -> Iterator[Callable[..., Any]]:
    """Makes frame stores on a real object store."""
    from small_clips import BOUND, CONTRACT, stop

    from rollout.frames.config import FramesConfig
    from rollout.frames.store import FrameStore

    with_own_pool = []

    def make(budget: int = 10 * BOUND, holders: int = 1, **config: Any) -> Any:
        frame_store = FrameStore(CONTRACT, budget, FramesConfig(**{"workers": 1, **config}), holders)
        if {"worker_gib", "cache_dir"} & config.keys():
            with_own_pool.append(frame_store)
        else:
            frame_store._pool = decoder
        return frame_store

    yield make
    for frame_store in with_own_pool:
        stop(frame_store._pool)
