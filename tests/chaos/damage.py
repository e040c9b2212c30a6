"""Faults that are no signals: each is done to a running training and returns what undoes it."""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import ray
from processes import find

from orchestration.loop.training import Training

PIECE = 32 * 2**20


def corrupt_weights(training: Training) -> Callable[[], None]:
    """Flip the bits of a few bytes, in shared memory, of the largest bucket of the weights that are published next.
    To be called when they are collected, and no engine has loaded them."""
    weights = training.parts.weights.actor
    version = ray.get(weights.latest.remote(), timeout=60)
    refs = ray.get(weights.buckets.remote(version), timeout=60)
    largest = max((ray.get(ref, timeout=60) for ref in refs), key=lambda array: array.nbytes)
    middle = largest.ctypes.data + largest.nbytes // 2
    ctypes.memmove(middle, bytes(255 - byte for byte in ctypes.string_at(middle, 16)), 16)
    return lambda: None


def set_mirror_back(training: Training) -> Callable[[], None]:
    """Let the mirror on this node be where it was three publications ago, as if it had missed the others. To be called
    before another is collected: what changed in the second is not held any more."""
    node = ray.get_runtime_context().get_node_id()
    mirror = ray.get(training.parts.weights.actor.mirror.remote(node), timeout=60)

    def back(mirror: Any) -> None:
        version = mirror.file.version
        with mirror.file.changed(version - 3, mirror.manifest.nbytes, 60.0):
            mirror.manifest = None

    ray.get(mirror.__ray_call__.remote(back), timeout=60)
    return lambda: None


def fill_object_store(training: Training) -> Callable[[], None]:
    """Fill the object store of this node, until this is undone."""
    room = int(ray.available_resources().get("object_store_memory", 0))
    held = [ray.put(np.zeros(PIECE, np.uint8)) for _ in range(room // PIECE)]
    return held.clear


def fill_disk(training: Training) -> Callable[[], None]:
    """Let no file of the driver and of the ranks grow, as on a full disk, until this is undone."""
    processes = [psutil.Process(os.getpid()), *find("rank", os.getpid())]
    before = [process.rlimit(resource.RLIMIT_FSIZE) for process in processes]
    for process, (_, hard) in zip(processes, before):
        process.rlimit(resource.RLIMIT_FSIZE, (1, hard))

    def undo() -> None:
        for process, limits in zip(processes, before):
            if process.is_running():
                process.rlimit(resource.RLIMIT_FSIZE, limits)

    return undo
