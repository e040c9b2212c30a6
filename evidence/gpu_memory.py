"""Waiting for a GPU's memory: a process that was killed holds its own for some seconds after its end.

Guarantee: a process that starts on the same GPU begins when the memory that it needs is free. After a limit it begins
anyway, and one line says what was missing.
"""

from __future__ import annotations

import logging
import os
import subprocess
import time

WAIT_S, PAUSE_S = 120.0, 2.0
VISIBLE = "CUDA_VISIBLE_DEVICES"  # set by Ray for each actor; empty where it has no GPU

log = logging.getLogger(__name__)


def wait_for_memory(share: float, limit_s: float = WAIT_S, pause_s: float = PAUSE_S) -> None:
    """Return when `share` of the memory of each GPU of this process is free. Returns at once without NVIDIA GPUs."""
    deadline = time.monotonic() + limit_s
    while (free := free_share()) is not None and free < share:
        if time.monotonic() >= deadline:
            log.warning(
                "%.0f%% of a GPU's memory is free after %g s, %.0f%% is needed", 100 * free, limit_s, 100 * share
            )
            return
        time.sleep(pause_s)


def free_share() -> float | None:
    """The free share of memory of this process's fullest GPU; None if it has none."""
    devices = os.environ.get(VISIBLE)
    if not devices:
        return None
    query = ["nvidia-smi", "-i", devices, "--query-gpu=memory.free,memory.total", "--format=csv,noheader,nounits"]
    try:
        reported = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True).stdout
        rows = [line.split(",") for line in reported.splitlines()]
        return min((float(free) / float(total) for free, total in rows), default=None)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
