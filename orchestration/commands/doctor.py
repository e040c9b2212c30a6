"""`ser doctor`: what this machine has, and what is missing or broken."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

import psutil

from evidence.errors import BadInput
from evidence.files import FORK_SERVER, require_room_for_sockets
from orchestration.leftovers import extensions_folder, orphaned_processes, stale_locks, unmapped_segments
from orchestration.machine import GIB, SHARED_MEMORY, require_short_ray_folder, version
from orchestration.supervision.local_session import left_behind

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
    for require in (require_short_ray_folder, lambda: require_room_for_sockets(FORK_SERVER)):
        try:
            require()
        except BadInput as error:
            problems.append(str(error))
    if locks := stale_locks(extensions_folder()):
        problems.append(f"a killed run left locks that make others wait for ever; rm {' '.join(locks)}")
    return [*lines, *leftovers(Path(SHARED_MEMORY))], problems


def leftovers(shared_memory: Path) -> list[str]:
    """Lines on what runs of this account have left and what costs no more than memory, with its remedy."""
    lines = [
        f"{'leftovers':14}what the killed run of process {session.driver.pid} left in {session.folder}; the next "
        "command that starts a Ray ends and removes it"
        for session in left_behind()
    ]
    if segments := unmapped_segments(shared_memory):
        size = sum(os.path.getsize(path) for path in segments if os.path.exists(path))
        lines.append(
            f"{'leftovers':14}{size / GIB:.2f} GiB of shared memory that no process of this account uses; if no other "
            f"container shares it: rm {' '.join(segments)}"
        )
    if orphans := orphaned_processes():
        pids = " ".join(orphan.split()[0] for orphan in orphans)
        lines.append(f"{'leftovers':14}Ray processes whose Ray node has ended ({', '.join(orphans)}); kill {pids}")
    return lines
