"""More nodes for the local cluster of the tests."""

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

# A node starts in 5 s, and is missed some 15 s after it was killed; a busy machine may take longer.
LIMIT_S = 180.0


@dataclass(frozen=True)
class Node:
    id: str
    process: psutil.Popen

    def kill(self) -> None:
        """End it as a loss of power would. Until Ray misses it, new actors may be placed there, and die."""
        if self.process.is_running():
            for each in [*self.process.children(recursive=True), self.process]:
                with suppress(psutil.NoSuchProcess):  # some end with the others
                    each.kill()
            self.process.wait()


@contextmanager
def another_node(*options: str) -> Iterator[Node]:
    """A node without CPUs, once the cluster counts it; `options` of `ray start`. Ends when Ray misses it, so that
    nothing of the tests that follow is placed there."""
    address, before = ray.get_runtime_context().gcs_address, _alive()
    command = [str(Path(sys.executable).with_name("ray")), "start", f"--address={address}", "--num-cpus=0", "--block"]
    process = psutil.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _wait(lambda: _alive() != before, "another node does not start")
    (started,) = _alive() - before
    node = Node(started, process)
    try:
        yield node
    finally:
        node.kill()
        _wait(lambda: node.id not in _alive(), "a node that was killed is not missed")


def _alive() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _wait(until: Callable[[], bool], otherwise: str) -> None:
    end = time.monotonic() + LIMIT_S
    while not until():
        assert time.monotonic() < end, otherwise
        time.sleep(0.1)
