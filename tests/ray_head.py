"""The nodes of a Ray cluster that a test starts by `ray start`, apart from any other Ray of this machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

LIMIT_S = 120.0


@contextmanager
def ray_head(log: Path, env: Mapping[str, str]) -> Iterator[str]:
    """A head, whose environment is that of its jobs. Yields the address of its dashboard."""
    gcs, dashboard, client, agent = free_ports(4)
    folder = Path("/tmp") / f"ser-head-{os.getpid()}"  # short, since the length of a socket's path is limited
    command = [
        *(Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--disable-usage-stats"),
        *(f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"),
        *(f"--dashboard-agent-listen-port={agent}", f"--temp-dir={folder}", "--object-store-memory=100000000"),
    ]
    with log.open("wb") as out:
        head = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)
    try:
        wait_until_started(head, log)
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        stop(head)
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for listener in sockets:
        listener.bind(("127.0.0.1", 0))
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


def stop(node: subprocess.Popen[bytes]) -> None:
    # Not SIGINT, which a test that runs in the background ignores, and its children, too.
    node.terminate()
    node.wait(timeout=LIMIT_S)


def wait_until_started(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a node is up, which has then been accepted by the head."""
    end = time.monotonic() + LIMIT_S
    while "Ray runtime started" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.5)
