"""The weights actor: it collects weight buckets from the learner ranks, owns them and serves them to the engines.

Guarantees (promise 7): a version is visible only when complete; versions strictly increase; at most the last two are
held, so the object store never keeps more; a rank's death loses nothing, since the caller of a Ray task owns what the
task returned. Every wait has a timeout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import ray

from evidence.manifest import Bucket, Manifest

# The version in use and the one being collected.
HELD_VERSIONS = 2


class IncompleteWeights(RuntimeError):
    """The ranks together did not return a complete weight set."""


class UnknownVersion(LookupError):
    """A version that is not held: not yet published, or already dropped."""


def assemble(version: int, buckets: Sequence[Bucket]) -> Manifest:
    """The manifest of `buckets`, in any order. Raises IncompleteWeights for a gap or a tensor in two buckets."""
    ordered = tuple(sorted(buckets, key=lambda bucket: bucket.index))
    if not ordered or [bucket.index for bucket in ordered] != list(range(len(ordered))):
        raise IncompleteWeights(f"version {version}: got buckets {[bucket.index for bucket in ordered]}")
    manifest = Manifest(version, ordered)
    if len(manifest.names) != sum(len(bucket.entries) for bucket in ordered):
        raise IncompleteWeights(f"version {version}: a tensor is in more than one bucket")
    return manifest


@ray.remote(num_cpus=0)
class WeightsActor:
    """The driver creates it under a name, by which the engines find it."""

    def __init__(self) -> None:
        self.held: dict[int, tuple[Manifest, list[ray.ObjectRef]]] = {}
        self.publishing = asyncio.Lock()

    async def publish(self, version: int, ranks: list[Any], timeout_s: float) -> Manifest:
        """Collect `version` from every rank's `weight_buckets(version)`, which streams header, bytes, header, bytes...

        Raises ValueError if `version` is not above the last one, IncompleteWeights, TimeoutError, or a rank's own
        error; the versions held before are then unchanged.
        """
        async with asyncio.timeout(timeout_s), self.publishing:
            if self.held and version <= max(self.held):
                raise ValueError(f"weight version {version} is not above {max(self.held)}")
            collected = await asyncio.gather(*(_collect(rank, version) for rank in ranks))
        buckets = sorted((pair for pairs in collected for pair in pairs), key=lambda pair: pair[0].index)
        manifest = assemble(version, [bucket for bucket, _ in buckets])
        self.held[version] = (manifest, [ref for _, ref in buckets])
        for old in sorted(self.held)[:-HELD_VERSIONS]:
            del self.held[old]
        return manifest

    async def latest(self) -> int | None:
        return max(self.held, default=None)

    async def manifest(self, version: int) -> Manifest:
        return self._find(version)[0]

    async def buckets(self, version: int) -> list[ray.ObjectRef]:
        """Refs to the bytes of each bucket, uint8 [nbytes], in the order of the manifest."""
        return self._find(version)[1]

    def _find(self, version: int) -> tuple[Manifest, list[ray.ObjectRef]]:
        if version not in self.held:
            raise UnknownVersion(f"weight version {version} is not held, only {sorted(self.held)}")
        return self.held[version]


async def _collect(rank: Any, version: int) -> list[tuple[Bucket, ray.ObjectRef]]:
    """One rank's buckets, each with a ref to its bytes."""
    pairs: list[tuple[Bucket, ray.ObjectRef]] = []
    header: Bucket | None = None
    async for ref in rank.weight_buckets.options(num_returns="streaming").remote(version):
        if header is None:
            header = await ref
        else:
            pairs.append((header, ref))
            header = None
    return pairs
