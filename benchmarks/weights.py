"""The exchange of weights through the object store, next to a copy of the same bytes: 1 GiB of bfloat16 on one node.

Two ranks copy their buckets out and hand them to the real weights actor; a reader gets them from it, verifies them and
copies them into memory of its own, as an engine does when it loads. Ray is real; there is no model and no GPU. In each
round a version is published and read, and the bytes are copied once by one thread, in turns, so that load from outside
strikes both alike. Ratios are medians of the rounds. The first version, in a cold store, is apart; the next ones do not
count: until each process has touched the store's memory, page faults take several times as long as the copies.

python -m benchmarks.weights [--json] [--mib 1024] [--rounds 5]

- exchange_vs_memcpy: rate of publishing and loading, checksums included, as a share of the copy's rate. Two copies
  alone (into the store, out of it) cap it at .5.
- without_checksums: the same, less the time that the checksums of both sides take.
- publish_parallel: how many times as fast two ranks, on a core each, pack and check all buckets as one does alone.
- extra_engine: by how much each further reader on the node adds to the time of one to get and verify all buckets.
- pause_minus_load_ms: of a real engine on a tiny model that generates: the time without generation, less that of
  loading. slowed_minus_load_ms: the same where the weights take ten times as long to arrive.
- delta_share_1, delta_share_3: bytes of what changed in a bucket when 1% and 3% of its elements did, as a share.
- find_delta_vs_memcpy, apply_delta_vs_memcpy: rates of finding and applying the former, per byte of the bucket, as a
  share of the copy's rate.
- growth: shared memory, and private memory of the weights actor and of a rank, over 50 versions after 10, relative.

With --json the last line holds these figures as one JSON object; without it, each has a line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import psutil
import ray
import xxhash
from ray._private.internal_api import node_stats

from benchmarks.weight_pauses import pauses
from evidence.delta import apply_delta, find_delta
from evidence.manifest import Bucket, Manifest, Packed, unpack_bucket
from orchestration.supervision.cluster import start_ray
from orchestration.supervision.weights import WeightsActor

RANKS, READERS, BUCKET_MIB, LIMIT_S = 2, 3, 64, 600.0
WARM_UP = 9  # versions


@ray.remote(num_cpus=0)
class Rank:
    """Holds a model's weights, and packs every `world`-th bucket of them, beginning with number `rank`."""

    def __init__(self, mib: int, rank: int, world: int, core: int | None = None):
        if core is not None:
            os.sched_setaffinity(0, {core})
        self.weights = np.random.default_rng(0).integers(0, 2**16, (mib // BUCKET_MIB, BUCKET_MIB << 19), np.uint16)
        self.numbers = range(rank, len(self.weights), world)

    def pid(self) -> int:
        return os.getpid()

    def weight_buckets(self, version: int, **_: Any) -> Iterator[Bucket | np.ndarray]:
        for number in self.numbers:
            packed = Packed.of({f"layer.{number}": self.weights[number]})
            yield packed.bucket(number, len(self.weights))
            yield packed.data

    def pack(self) -> float:
        """Seconds in which all own buckets are packed and checked."""
        began = time.monotonic()
        for number in self.numbers:
            Packed.of({f"layer.{number}": self.weights[number]}).bucket(number, len(self.weights))
        return time.monotonic() - began


@ray.remote(num_cpus=0)
class Reader:
    """An engine's process, without a model."""

    def __init__(self, mib: int):
        self.loaded = np.zeros(mib << 19, np.uint16)

    def fetch(self, store: Any, version: int) -> float:
        """Seconds in which a version is here and verified."""
        began = time.monotonic()
        manifest: Manifest = ray.get(store.manifest.remote(version))
        arrays = ray.get(ray.get(store.buckets.remote(version)))
        self.views = [unpack_bucket(bucket, data) for bucket, data in zip(manifest.buckets, arrays, strict=True)]
        return time.monotonic() - began

    def load(self) -> float:
        began, start = time.monotonic(), 0
        for view in (view for views in self.views for view in views.values()):
            self.loaded[start : start + view.size] = view.reshape(-1)
            start += view.size
        self.views = []
        return time.monotonic() - began


def seconds(work: Any) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def done(method: Any, *args: Any) -> None:
    ray.get(method.remote(*args))


def exchange(mib: int, rounds: int) -> dict[str, float]:
    """The ratios, of `rounds` warm rounds."""
    store = WeightsActor.remote()  # type: ignore[attr-defined]
    ranks = [Rank.remote(mib, rank, RANKS) for rank in range(RANKS)]
    readers = [Reader.remote(mib) for _ in range(READERS)]
    ray.get([rank.pid.remote() for rank in ranks])
    source, target = np.ones(mib << 20, np.uint8), np.ones(mib << 20, np.uint8)
    shares, unchecked, extra = [], [], []
    for version in range(1, WARM_UP + rounds + 1):
        copy_s = seconds(lambda: np.copyto(target, source))
        check_s = seconds(lambda: xxhash.xxh3_64_intdigest(source.data))
        publish_s = seconds(partial(done, store.publish, version, ranks, LIMIT_S))
        alone_s = ray.get(readers[0].fetch.remote(store, version))
        load_s = ray.get(readers[0].load.remote())
        shares.append(copy_s / (publish_s + alone_s + load_s))
        # The ranks check their halves at the same time.
        unchecked.append(copy_s / (publish_s + alone_s + load_s - (1 + 1 / RANKS) * check_s))
        began = time.monotonic()
        ray.get([reader.fetch.remote(store, version) for reader in readers])
        together_s = time.monotonic() - began
        extra.append((together_s / alone_s - 1) / (READERS - 1))
        ray.get([reader.load.remote() for reader in readers])
    for actor in (store, *ranks, *readers):
        ray.kill(actor)
    warm = {"exchange_vs_memcpy": shares, "without_checksums": unchecked, "extra_engine": extra}
    medians = {name: statistics.median(values[WARM_UP:]) for name, values in warm.items()}
    return medians | {"cold_vs_memcpy": shares[0]}


def parallel(mib: int, rounds: int) -> float:
    """Time of one rank that packs all buckets over that of two which share them, each on a core of its own."""
    cores = sorted(os.sched_getaffinity(0))[:RANKS]
    alone = Rank.remote(mib, 0, 1, cores[0])
    both = [Rank.remote(mib, rank, RANKS, core) for rank, core in enumerate(cores)]
    ratios = []
    for _ in range(rounds + 1):
        one_s = ray.get(alone.pack.remote())
        ratios.append(one_s / max(ray.get([rank.pack.remote() for rank in both])))
    for actor in (alone, *both):
        ray.kill(actor)
    return statistics.median(ratios[1:])


def deltas(rounds: int) -> dict[str, float]:
    """Sizes and rates of what changed in one bucket."""
    rng = np.random.default_rng(0)
    before = rng.integers(0, 2**16, BUCKET_MIB << 19, np.uint16)
    report: dict[str, float] = {}
    for percent in (1, 3):
        packed = Packed.of({"layer": before ^ (rng.random(before.size) < percent / 100).astype(np.uint16)})
        target = np.zeros_like(packed.data)
        finding, applying = [], []
        for _ in range(rounds):
            copy_s = seconds(partial(np.copyto, target, before.view(np.uint8)))
            began = time.monotonic()
            found = find_delta(1, before.view(np.uint8), packed.data)
            finding.append(copy_s / (time.monotonic() - began))
            assert found is not None
            bucket = replace(packed.bucket(0, 1), delta=found[0])
            applying.append(copy_s / seconds(partial(apply_delta, bucket, found[1], target)))
        report[f"delta_share_{percent}"] = found[0].nbytes / packed.data.nbytes
        if percent == 1:
            report["find_delta_vs_memcpy"] = statistics.median(finding)
            report["apply_delta_vs_memcpy"] = statistics.median(applying)
    return report


def store_bytes() -> int:
    """Bytes in the node's store, once those that nothing refers to are gone."""
    (node,) = ray.nodes()
    readings = []
    for _ in range(30):
        stats = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"]).store_stats
        readings.append(stats.object_store_bytes_used)
        time.sleep(0.1)
    return min(readings)


def growth(mib: int, versions: Sequence[int]) -> dict[str, float]:
    """Memory after the last of `versions` over that after the first, less one."""
    store, ranks = WeightsActor.remote(), [Rank.remote(mib, rank, RANKS) for rank in range(RANKS)]  # type: ignore[attr-defined]
    pids = {"rank": ranks[0].pid.remote(), "weights_actor": store.__ray_call__.remote(lambda _: os.getpid())}
    held = {name: psutil.Process(ray.get(pid)) for name, pid in pids.items()}
    used: dict[str, list[float]] = {name: [] for name in (*held, "store")}
    for version in range(1, max(versions) + 1):
        ray.get(store.publish.remote(version, ranks, LIMIT_S))
        if version in versions:
            used["store"].append(store_bytes())
            for name, process in held.items():
                used[name].append(process.memory_full_info().uss)
    return {f"growth_{name}": values[-1] / values[0] - 1 for name, values in used.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=1024, help="of bfloat16 weights")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with start_ray(object_store_gib=2.5 * args.mib / 1024):
        report = exchange(args.mib, args.rounds)
        report["publish_parallel"] = parallel(args.mib, args.rounds)
        report |= growth(BUCKET_MIB * RANKS, (10, 60)) | pauses(args.rounds)
    report |= deltas(args.rounds)
    figures = {"mib": args.mib, "rounds": args.rounds} | {name: round(value, 4) for name, value in report.items()}
    print(json.dumps(figures) if args.json else "\n".join(f"{name:24} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
