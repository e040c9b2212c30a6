"""`ser doctor`: what this machine has, and what is missing or broken."""

from __future__ import annotations

import os
import platform
import shutil

import psutil

from orchestration.machine import GIB, SHARED_MEMORY, version

PACKAGES = ("ray", "vllm", "deepspeed", "torch", "torchvision", "transformers", "decord", "omegaconf", "wandb", "numpy")
# CUDA builds fail to import beside a CPU torch, and transformers and vLLM import them if they are installed.
BREAKING = ("torchaudio", "torchcodec")


def report() -> tuple[list[str], list[str]]:
    """(lines to print, problems: one line each, with its remedy)."""
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
    problems = [f"{package} is not installed; run `make install`" for package in PACKAGES if version(package) is None]
    if "+cpu" in (version("torch") or ""):
        for package in BREAKING:
            if "+cpu" not in (version(package) or "+cpu"):
                problems.append(f"{package} is a CUDA build and breaks transformers here; pip uninstall {package}")
    return lines, problems
