"""How long a real engine stands still for new weights: it generates with a tiny model, and loads from a mirror.

For a slow transfer, the mirror is kept from changing for ten times as long as it usually takes to get a version.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray
from safetensors.numpy import load_file

from evidence.manifest import Packed
from evidence.supervision import actor_class
from learner.model.tiny import create_tiny_model
from learner.sent_weights import SentWeights
from orchestration.supervision.cluster import NAMESPACE
from orchestration.supervision.weights import WeightsActor
from rollout.engine import Engine, EngineConfig, WeightStore
from rollout.mirror_file import MirrorReader
from rollout.prompt import ChatEncoder

NAME, LIMIT_S, SLOWER = "weights of the benchmark", 120.0, 10
CORPUS = ("which circle is red? The red circle moves slowly from the left to the right.",)
MARKS = ("pause_generation", "start_weight_update", "finish_weight_update", "resume_generation")


@ray.remote(num_cpus=0)
class TinyRank:
    """Publishes the model's weights, of which a few change with every version."""

    def __init__(self, folder: str):
        tensors = load_file(Path(folder) / "model.safetensors")
        self.tensors = {name: tensor for name, tensor in tensors.items() if "visual" not in name}
        self.sent = SentWeights()

    def weight_buckets(self, version: int, attempt: int, base: int | None, keep: bool) -> Iterator[Any]:
        for tensor in self.tensors.values():
            tensor.reshape(-1)[0] = version
        yield from self.sent.send(version, base, [(0, 1, Packed.of(self.tensors))], keep)


def timed(llm: Any) -> dict[str, list[float]]:
    """When each of the calls by which an engine loads weights began and ended."""
    times: dict[str, list[float]] = {}

    def wrap(name: str) -> None:
        inner = getattr(llm, name)

        async def call(*args: Any, **more: Any) -> Any:
            began = time.monotonic()
            result = await inner(*args, **more)
            times[name] = [began, time.monotonic()]
            return result

        setattr(llm, name, call)

    for name in MARKS:
        wrap(name)
    return times


def pauses(rounds: int) -> dict[str, float]:
    """Milliseconds, medians of the rounds."""
    with tempfile.TemporaryDirectory() as folder:
        create_tiny_model(Path(folder), corpus=CORPUS)
        return asyncio.run(_pauses(folder, rounds))


async def _pauses(folder: str, rounds: int) -> dict[str, float]:
    context = ray.get_runtime_context()
    store = actor_class(WeightsActor).options(name=NAME).remote(full_every=10**6)
    ranks = [actor_class(TinyRank).remote(folder)]
    encoder = ChatEncoder(folder)
    prompt, frames = encoder.encode([(56, 56), "Which circle is red?"]), np.zeros((1, 56, 56, 3), np.uint8)
    where = WeightStore(context.gcs_address, NAMESPACE, NAME)
    engine = await Engine.start(EngineConfig(folder), encoder.banned_ids, 0, where)
    times, beyond, fetching = timed(engine.llm), {1: [], SLOWER: []}, []  # type: ignore[var-annotated]
    try:
        for version in range(1, 2 * rounds + 3):
            await store.publish.remote(version, ranks, LIMIT_S)
            mirror = await store.mirror.remote(context.get_node_id())
            factor = SLOWER if version % 2 else 1
            held = None
            if factor == SLOWER and fetching:
                held = MirrorReader((await mirror.hold.remote(version - 1, LIMIT_S))[1], LIMIT_S)
                asyncio.get_running_loop().call_later(factor * statistics.median(fetching), held.release)
            generation = asyncio.create_task(engine.generate(prompt, frames, 8, 1.0, 1000, seed=version))
            began = time.monotonic()
            await engine.update_weights(version)
            pause_s = times["resume_generation"][1] - times["pause_generation"][0]
            load_s = times["finish_weight_update"][1] - times["start_weight_update"][0]
            if version > 2:  # the first ones include one-time work
                beyond[factor].append(1e3 * (pause_s - load_s))
            if factor == 1:
                fetching.append(times["pause_generation"][0] - began)
            await generation
    finally:
        await engine.stop()
        for actor in (store, *ranks):
            ray.kill(actor)
    names = {1: "pause_minus_load_ms", SLOWER: "slowed_minus_load_ms"}
    return {names[factor]: statistics.median(values) for factor, values in beyond.items()}
