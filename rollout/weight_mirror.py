"""The actor of a node's mirror: one copy of the published weights in host memory, from which its engines load.

Guarantees (promise 7): what is sent is fetched once for the node, and checked before it is applied; the weights that
engines are given have the checksums of those that the ranks packed. Where that fails, the mirror has the weights actor
publish all weights, and an engine that asks is refused until then.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import ray

from evidence.delta import apply_delta, verify_delta
from evidence.manifest import Bucket, CorruptBucket, Manifest, verify_bucket
from rollout.mirror_file import MirrorFile, MirrorPath

MOST_THREADS = 8


# When it dies, Ray starts it again, empty.
@ray.remote(num_cpus=0, max_restarts=-1)
class WeightMirror:
    """The weights actor starts one on each node that has engines, and is given to it as `store`."""

    def __init__(self, store: Any):
        self.store = store
        self.file = MirrorFile()
        self.manifest: Manifest | None = None
        self.threads = ThreadPoolExecutor(min(MOST_THREADS, len(os.sched_getaffinity(0))))

    def hold(self, version: int, timeout_s: float) -> tuple[Manifest, MirrorPath]:
        """Make the mirror hold `version`. Returns its manifest, whose buckets lie one after the other, and where.

        Raises what `WeightsActor.path` raises, TimeoutError, and CorruptBucket."""
        deadline = time.monotonic() + timeout_s

        def left_s() -> float:
            return max(0.0, deadline - time.monotonic())

        if self.file.version != version or self.manifest is None:
            path = ray.get(self.store.path.remote(version, self.file.version), timeout=left_s())
            try:
                for manifest, refs in path:
                    self._apply(manifest, ray.get(refs, timeout=left_s()), left_s())
            except CorruptBucket:
                ray.get(self.store.want_full.remote(version), timeout=timeout_s)
                raise
        assert self.manifest is not None
        return self.manifest, self.file.where

    def _apply(self, manifest: Manifest, sent: Sequence[np.ndarray], limit_s: float) -> None:
        buckets = manifest.buckets
        list(self.threads.map(_verify_sent, buckets, sent))  # before anything changes
        with self.file.changed(manifest.version, manifest.nbytes, limit_s) as data:
            list(self.threads.map(_apply_bucket, buckets, sent, parts(manifest, data)))
        self.manifest = manifest


def parts(manifest: Manifest, data: np.ndarray) -> list[np.ndarray]:
    """Views of a mirror's bytes, one for each bucket."""
    ends = list(itertools.accumulate(bucket.nbytes for bucket in manifest.buckets))
    return [data[end - bucket.nbytes : end] for bucket, end in zip(manifest.buckets, ends)]


def _verify_sent(bucket: Bucket, sent: np.ndarray) -> None:
    if bucket.delta is None:
        verify_bucket(bucket, sent)
    else:
        verify_delta(bucket, sent)


def _apply_bucket(bucket: Bucket, sent: np.ndarray, target: np.ndarray) -> None:
    if bucket.delta is None:
        target[:] = sent
    else:
        apply_delta(bucket, sent, target)
