"""Joining a Ray cluster, or starting one for this process alone.

Guarantees: the requested object store is checked against the machine's memory before anything starts; a cluster that
this process started ends with it, a cluster that it joined keeps running.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

import ray

from evidence.errors import BadInput
from orchestration.machine import require_memory, require_short_ray_folder
from orchestration.reporting.awaiting import awaiting

NAMESPACE = "ser"
# Inherited by every actor, in each of which these libraries would otherwise start one thread per core.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


@contextlib.contextmanager
def start_ray(object_store_gib: float, gpus: float = 0.0) -> Iterator[None]:
    """Join the cluster named by RAY_ADDRESS (as in `ray job submit`), or start a local one with this object store.

    Raises BadInput if the object store does not fit this machine, if TMPDIR is too long for Ray's sockets, if the
    cluster cannot be joined, or if it has fewer than `gpus` GPUs.
    """
    local_cluster: dict[str, Any] = {}
    address = os.environ.get("RAY_ADDRESS")
    if address is None:
        require_memory(object_store_gib)
        require_short_ray_folder()
        os.environ.update(ONE_THREAD)
        store = int(object_store_gib * 2**30)
        local_cluster = {"address": "local", "object_store_memory": store, "include_dashboard": False}
    try:
        with awaiting("Ray"):
            ray.init(namespace=NAMESPACE, logging_level=logging.ERROR, log_to_driver=False, **local_cluster)
    except (ConnectionError, ValueError, ray.exceptions.AuthenticationError) as error:
        if address is None:
            raise
        raise BadInput(
            f"RAY_ADDRESS = {address}: {str(error).splitlines()[0]}; must be HOST:PORT of a head that runs, with "
            "RAY_AUTH_MODE=token and the head's ~/.ray/auth_token where it requires a token (docs/cluster.md)"
        ) from None
    try:
        available = ray.cluster_resources().get("GPU", 0.0)
        if gpus > available:
            raise BadInput(f"cluster.gpus_per_engine, gpus_per_rank: need {gpus:g} GPUs, the cluster has {available:g}")
        yield
    finally:
        ray.shutdown()
