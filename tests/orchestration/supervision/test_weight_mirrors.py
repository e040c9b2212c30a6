"""The weights actor and a node's mirror, real ones, with what changed of small weights."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest
import ray
from nodes import another_node

from evidence.manifest import CorruptBucket, Packed, views_of
from evidence.supervision import actor_class
from learner.sent_weights import SentWeights
from orchestration.supervision.weights import Publication, WeightsActor
from rollout.mirror_file import MirrorReader
from rollout.weight_mirror import parts

# Ray's workers cannot import a test module.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.slow
RANKS, BUCKETS, WORDS, CHANGED = 2, 4, 200_000, 0.01
TIMEOUT_S = 60.0


def weights_of(version: int) -> list[np.ndarray]:
    """Bucket by bucket, uint16 [WORDS]. Every version changes some of them."""
    rng = np.random.default_rng(0)
    buckets = rng.integers(0, 2**16, (BUCKETS, WORDS), np.uint16)
    for step in range(version):
        changes = np.random.default_rng(step + 1)
        places = changes.integers(0, WORDS, (BUCKETS, int(CHANGED * WORDS)))
        np.put_along_axis(buckets, places, changes.integers(0, 2**16, places.shape, np.uint16), 1)
    return list(buckets)


@ray.remote(num_cpus=0)
class Rank:
    def __init__(self, rank: int):
        self.rank, self.sent, self.damaged = rank, SentWeights(), False

    def damage(self, damaged: bool) -> None:
        """Whether to flip a bit of each bucket."""
        self.damaged = damaged

    def weight_buckets(self, version: int, attempt: int, base: int | None, keep: bool) -> Iterator[Any]:
        own = list(enumerate(weights_of(version)))[self.rank :: RANKS]
        buckets = ((number, BUCKETS, Packed.of({f"w{number}": words})) for number, words in own)
        for item in self.sent.send(version, base, buckets, keep):
            sent = item.copy() if isinstance(item, np.ndarray) else item
            if self.damaged and isinstance(sent, np.ndarray):
                sent[len(sent) // 2] ^= 1
            yield sent


class Exchange:
    """A weights actor, its ranks, and this process in place of an engine."""

    def __init__(self, full_every: int):
        self.actor = actor_class(WeightsActor).remote(full_every)
        self.ranks = [actor_class(Rank).remote(rank) for rank in range(RANKS)]
        self.node = ray.get_runtime_context().get_node_id()

    def publish(self, version: int, damaged: bool = False) -> Publication:
        ray.get(self.ranks[1].damage.remote(damaged), timeout=TIMEOUT_S)
        return ray.get(self.actor.publish.remote(version, self.ranks, TIMEOUT_S), timeout=TIMEOUT_S)

    @property
    def mirror(self) -> Any:
        return ray.get(self.actor.mirror.remote(self.node), timeout=TIMEOUT_S)

    def load(self, version: int) -> None:
        """Load a version as an engine does, and compare it with what the ranks packed."""
        manifest, where = ray.get(self.mirror.hold.remote(version, TIMEOUT_S), timeout=TIMEOUT_S)
        reader = MirrorReader(where, TIMEOUT_S)
        loaded = dict(
            item
            for bucket, data in zip(manifest.buckets, parts(manifest, reader.data), strict=True)
            for item in views_of(bucket.entries, data).items()
        )
        for number, words in enumerate(weights_of(version)):
            assert np.array_equal(loaded[f"w{number}"], words)
        reader.release()

    def full_wanted(self) -> bool:
        return ray.get(self.actor.full_wanted.remote(), timeout=TIMEOUT_S)

    def stop(self) -> None:
        for actor in (self.actor, *self.ranks):
            ray.kill(actor)


@pytest.fixture(scope="module")
def started(ray_cluster: Any) -> Iterator[Exchange]:
    exchange = Exchange(full_every=20)
    yield exchange
    exchange.stop()


@pytest.fixture
def exchange(started: Exchange) -> Exchange:
    """After a publication of all weights, as version 0 of a test, which the mirror has."""
    ray.get(started.actor.drop.remote(), timeout=TIMEOUT_S)
    assert started.publish(1).share == 1.0
    started.load(1)
    return started


def test_what_changed_makes_the_same_weights_over_fifty_versions(exchange: Exchange) -> None:
    shares = {1: 1.0}
    for version in range(2, 51):
        shares[version] = exchange.publish(version).share
        if version != 30:  # 31 is made of 30 and of itself
            exchange.load(version)
    assert [version for version, share in shares.items() if share == 1.0] == [1, 21, 41]
    assert max(share for share in shares.values() if share < 1.0) < 0.02
    assert not exchange.full_wanted()


def test_missed_versions_lead_to_all_weights(exchange: Exchange) -> None:
    for version in (2, 3, 4):
        assert exchange.publish(version).share < 0.02
    with pytest.raises(LookupError, match="weight version 4 changes 2, which is not held any more"):
        exchange.load(4)
    assert exchange.full_wanted()
    assert exchange.publish(5) == Publication(1.0, forced=True)
    exchange.load(5)
    assert not exchange.full_wanted()
    assert exchange.publish(6).share < 0.02
    exchange.load(6)


def test_a_mirror_that_dies_is_started_again_and_leads_to_all_weights(exchange: Exchange) -> None:
    pid = ray.get(exchange.mirror.__ray_call__.remote(lambda _: os.getpid()), timeout=TIMEOUT_S)
    psutil.Process(pid).kill()
    for version in (2, 3, 4):
        exchange.publish(version)
    until = time.monotonic() + TIMEOUT_S
    while not exchange.full_wanted() and time.monotonic() < until:
        with pytest.raises((LookupError, ray.exceptions.RayActorError)):
            exchange.load(4)
    assert exchange.publish(5) == Publication(1.0, forced=True)
    exchange.load(5)


def test_a_mirror_that_hangs_is_replaced_where_no_engine_can_load(exchange: Exchange) -> None:
    pid = ray.get(exchange.mirror.__ray_call__.remote(lambda _: os.getpid()), timeout=TIMEOUT_S)
    process = psutil.Process(pid)
    process.suspend()
    exchange.publish(2)
    with pytest.raises(ray.exceptions.GetTimeoutError):
        ray.get(exchange.mirror.hold.remote(2, 1.0), timeout=1.0)
    ray.get(exchange.actor.drop.remote(mirrors=True), timeout=TIMEOUT_S)
    assert exchange.publish(2) == Publication(1.0, forced=True)
    exchange.load(2)
    _, alive = psutil.wait_procs([process], timeout=TIMEOUT_S)
    assert not alive


@pytest.mark.parametrize("whole", [True, False], ids=["all weights", "what changed"])
def test_damaged_bytes_are_never_loaded_and_lead_to_all_weights(exchange: Exchange, whole: bool) -> None:
    if whole:
        ray.get(exchange.actor.drop.remote())
    exchange.publish(2, damaged=True)
    with pytest.raises(CorruptBucket, match="bucket 1: checksum"):
        exchange.load(2)
    assert exchange.full_wanted()
    assert exchange.publish(3) == Publication(1.0, forced=True)
    exchange.load(3)


def test_a_reader_that_holds_the_mirror_delays_the_next_version(exchange: Exchange) -> None:
    _, where = ray.get(exchange.mirror.hold.remote(1, TIMEOUT_S), timeout=TIMEOUT_S)
    reader = MirrorReader(where, TIMEOUT_S)
    exchange.publish(2)
    with pytest.raises(TimeoutError, match="lock was not free within"):
        ray.get(exchange.mirror.hold.remote(2, 1.0), timeout=TIMEOUT_S)
    assert np.array_equal(reader.data[: 2 * WORDS].view(np.uint16), weights_of(1)[0])
    reader.release()
    exchange.load(2)
    assert not exchange.full_wanted()


def test_each_node_has_a_mirror_which_ends_with_the_weights_actor(ray_cluster: Any) -> None:
    exchange = Exchange(full_every=5)
    assert exchange.publish(1).share == 1.0
    exchange.load(1)
    with another_node() as node:
        far = ray.get(exchange.actor.mirror.remote(node.id), timeout=TIMEOUT_S)
        _, where = ray.get(far.hold.remote(1, TIMEOUT_S), timeout=TIMEOUT_S)
        assert where.version == 1
        assert ray.get(far.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id())) == node.id
        pids = [
            ray.get(mirror.__ray_call__.remote(lambda _: os.getpid()), timeout=TIMEOUT_S)
            for mirror in (far, exchange.mirror)
        ]
        processes = [psutil.Process(pid) for pid in pids]
        exchange.stop()
        _, alive = psutil.wait_procs(processes, timeout=TIMEOUT_S)
        assert not alive


def test_without_changes_there_is_no_mirror(ray_cluster: Any) -> None:
    exchange = Exchange(full_every=1)
    for version in (1, 2):
        assert exchange.publish(version) == Publication(1.0, forced=False)
    assert exchange.mirror is None
    with contextlib.suppress(ray.exceptions.RayActorError):
        exchange.stop()
