"""More nodes for the local cluster of the tests."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import ray

START_S = 60.0


def start_node(*options: str) -> psutil.Popen:
    """A node without CPUs, once the cluster counts it; `options` of `ray start`."""
    address, before = ray.get_runtime_context().gcs_address, len(ray.nodes())
    command = [str(Path(sys.executable).with_name("ray")), "start", f"--address={address}", "--num-cpus=0", "--block"]
    process = psutil.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + START_S
    while len(ray.nodes()) == before:
        assert time.monotonic() < until, "another node does not start"
        time.sleep(0.1)
    return process


def kill_node(process: psutil.Popen) -> None:
    for each in [*process.children(recursive=True), process]:
        each.kill()
    process.wait()
