"""Adds nodes to the local cluster of the tests."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import ray

# A node starts in 5 s, and Ray notices its death after about 15 s; a busy machine may take longer.
LIMIT_S = 180.0


@dataclass(frozen=True)
class Node:
    id: str
    process: psutil.Popen

    def kill(self) -> None:
        """Kill the node as a power loss would. Until Ray notices, actors may still be placed there, and die."""
        if self.process.is_running():
            for process in [*self.process.children(recursive=True), self.process]:
                with suppress(psutil.NoSuchProcess):  # some end together with others
                    process.kill()
            self.process.wait()


@contextmanager
def another_node(*options: str, env: dict[str, str] | None = None) -> Iterator[Node]:
    """Start a node without CPUs and wait until the cluster counts it; `options`: of `ray start`; `env`: None is that
    of this process. On exit, kill it and wait until Ray has noticed, so that later tests place nothing there."""
    address, before = ray.get_runtime_context().gcs_address, _alive()
    command = [str(Path(sys.executable).with_name("ray")), "start", f"--address={address}", "--num-cpus=0", "--block"]
    process = psutil.Popen([*command, *options], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _wait(lambda: _alive() != before, "the node does not start")
    (started,) = _alive() - before
    node = Node(started, process)
    try:
        yield node
    finally:
        node.kill()
        _wait(lambda: node.id not in _alive(), "Ray does not notice that the node was killed")


def _alive() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _wait(until: Callable[[], bool], message: str) -> None:
    end = time.monotonic() + LIMIT_S
    while not until():
        assert time.monotonic() < end, message
        time.sleep(0.1)
