"""A node dies and its frames are lost: tasks that need them get Ray's error, and the store decodes them again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import ray
from nodes import Node, another_node
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from small_clips import stop

from evidence.sampling import SamplingContract
from learner.actor import LearnerRank
from learner.settings import RankConfig
from rollout.frames.config import FramesConfig
from rollout.frames.decoder_pool import Decoder
from rollout.frames.decoding import decode
from rollout.frames.store import FrameStore

pytestmark = pytest.mark.slow
# Smaller frames would not be in the object store: Ray keeps results of up to 100 KB with their owner.
CONTRACT = SamplingContract(frames=32, max_pixels=6272, min_pixels=784, multiple=28)
HEAD_NODE = {"node:__internal_head__": 0.001}


def clip(path: Path, grey: int) -> str:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 4, (112, 56))
    for k in range(40):
        writer.write(np.full((56, 112, 3), grey + 2 * k, np.uint8))
    writer.release()
    return str(path)


def place(store: FrameStore, create: Callable[[], Any]) -> None:
    """Make the store's decoders by `create`, which says on which node they run."""
    store._pool._lifecycle = replace(store._pool._lifecycle, create=create)


@pytest.fixture
def mortal(ray_cluster: Any) -> Iterator[Node]:
    """A second node, with the resource "mortal", which the test kills."""
    with another_node('--resources={"mortal":1}', f"--object-store-memory={80 * 2**20}") as node:
        yield node


@ray.remote(num_cpus=0, resources=HEAD_NODE)
class Engine:
    """Receives frames as an argument, as the rollout actor and the referee do."""

    async def generate(self, frames: np.ndarray) -> int:
        return int(frames.sum())


def test_frames_lost_with_a_node_are_decoded_again(
    mortal: Node, run: Callable[..., Any], tiny_model: Path, tmp_path: Path
) -> None:
    paths = [clip(tmp_path / f"{k}.mp4", 40 * k) for k in range(3)]
    store = FrameStore(CONTRACT, 2**26, FramesConfig(workers=1))
    place(store, lambda: Decoder.options(resources={"mortal": 0.01}).remote(2**30, None))
    sent, ready, fetched = [run(store.lease(path)) for path in paths]
    engine = Engine.remote()
    rank = LearnerRank.options(num_cpus=0, resources=HEAD_NODE).remote(RankConfig(str(tiny_model), ()), 0, 1)
    ray.get(rank.fetch.remote([fetched.frames]))
    mortal.kill()

    async def generate() -> int:
        return await engine.generate.remote(sent.frames)

    with pytest.raises(ray.exceptions.ObjectLostError) as loss:
        run(generate())
    assert store.lost(loss.value)
    with pytest.raises(ray.exceptions.ObjectLostError) as loss:
        ray.get(rank.fetch.remote([fetched.frames, ready.frames]))
    assert store.lost(loss.value)
    ray.get(rank.fetch.remote([fetched.frames]))  # the rank still holds the copy it fetched
    assert store.counters()["lost"] == 2

    place(store, lambda: Decoder.options(resources=HEAD_NODE).remote(2**30, None))
    for lease, path in zip((sent, ready, fetched), paths):
        run(lease.renew())
        np.testing.assert_array_equal(ray.get(lease.frames), decode(path, CONTRACT)[0])
    assert run(generate()) == int(decode(paths[0], CONTRACT)[0].sum(dtype=int))
    assert store.counters()["decoded"] == 5


def test_a_node_death_that_ray_has_not_noticed_yet_makes_no_file_unreadable(
    mortal: Node, run: Callable[..., Any], tmp_path: Path
) -> None:
    path = clip(tmp_path / "a.mp4", 0)
    store = FrameStore(CONTRACT, 2**26, FramesConfig(workers=1))
    on_mortal = NodeAffinitySchedulingStrategy(mortal.id, soft=True)  # or on any node, once Ray has noticed the death
    place(store, lambda: Decoder.options(scheduling_strategy=on_mortal).remote(2**30, None))
    mortal.kill()
    with run(store.lease(path)) as lease:
        np.testing.assert_array_equal(ray.get(lease.frames), decode(path, CONTRACT)[0])
    assert store.counters()["decoder_deaths"] == 1
    stop(store._pool)
