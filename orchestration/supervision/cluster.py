"""Joining a Ray cluster, or starting one for this process alone.

Guarantees: what the config asks for is checked against the machine before anything starts; a cluster that this process
started ends with it, one that it joined does not.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

import ray

from evidence.errors import BadInput
from orchestration.machine import require_memory

NAMESPACE = "ser"
# Fork-started helpers of every library that would otherwise take all cores in every actor.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


@contextlib.contextmanager
def start_ray(object_store_gib: float, gpus: float = 0.0) -> Iterator[None]:
    """Join the cluster that RAY_ADDRESS names (as in `ray job submit`), else start one with this object store.

    Raises BadInput if the object store does not fit this machine, or the cluster has fewer than `gpus`.
    """
    own = {}
    if "RAY_ADDRESS" not in os.environ:
        require_memory(object_store_gib)
        os.environ.update(ONE_THREAD)
        store = int(object_store_gib * 2**30)
        own = {"address": "local", "object_store_memory": store, "include_dashboard": False}
    ray.init(namespace=NAMESPACE, logging_level=logging.ERROR, log_to_driver=False, **own)
    try:
        have = ray.cluster_resources().get("GPU", 0.0)
        if gpus > have:
            raise BadInput(f"cluster.gpus_per_engine, gpus_per_rank: {gpus:g} GPUs asked for, the cluster has {have:g}")
        yield
    finally:
        ray.shutdown()
