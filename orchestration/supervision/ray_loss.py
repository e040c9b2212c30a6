"""Notices the loss of Ray itself, before Ray does, and ends the driver with one line and exit code 1.

Ray's own reactions come late (after 5 to 60 s) and differ: until then some calls hang and actors are started again in
vain; then the driver is ended from C++. So a thread watches the raylet of this machine and the GCS server: the process
of a server that the driver has started, the address of one that it has joined.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ray

from evidence.errors import BadInput, RunFailed
from orchestration.streams import say
from orchestration.supervision.process_table import Process, command, is_running, process

# Seconds. Ray itself ends a driver that has not reached the GCS server for 60 s.
POLL_S, CONNECT_S, UNREACHABLE_S = 0.5, 5.0, 40.0
# Seconds in which the driver may end by itself, closing its files, before it is ended.
UNWIND_S = 3.0
# Seconds in which the loss is noticed here after it has caused an error elsewhere in the driver.
NOTICED_S = 1.5
REMEDY = "ser train with resume=auto continues from the last checkpoint"


@dataclass(frozen=True)
class Server:
    """A process of Ray. `logs`: the folder of its log."""

    name: str
    process: Process
    logs: Path


class LossWatch:
    """Watches `servers`, and whether `address` (HOST:PORT, or None) accepts connections."""

    def __init__(self, servers: list[Server], address: str | None = None):
        self._servers, self._address = servers, address
        self._reached_at = self._connect_at = time.monotonic()
        self._stopped, self._lost = threading.Event(), threading.Event()
        self._line = ""

    def loss(self) -> str | None:
        """One line that says what has been lost, if anything. Takes up to CONNECT_S seconds."""
        for server in self._servers:
            if not is_running(server.process.pid, server.process.started):
                log = server.logs / f"{server.name}.err"
                return f"Ray's {server.name} on this machine died ({log} may say why); {REMEDY}"
        now = time.monotonic()
        if self._address and now >= self._connect_at:
            self._connect_at = now + CONNECT_S
            if _accepts_connections(self._address):
                self._reached_at = time.monotonic()
            elif time.monotonic() - self._reached_at > UNREACHABLE_S:
                return f"Ray's head at {self._address} has not been reached for {UNREACHABLE_S:g} s; {REMEDY}"
        return None

    def watch(self) -> None:
        """Run until stopped. After a loss, end this process, with what dying parts of Ray print kept off stderr."""
        while not self._stopped.wait(POLL_S):
            if line := self.loss():
                self._line = line
                say(f"ser: {line}")
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                self._lost.set()
                threading.Thread(target=_flush, daemon=True).start()  # it may wait for a lock that is never released
                time.sleep(UNWIND_S)
                os._exit(1)

    def raise_if_lost(self) -> None:
        """Raises RunFailed if a loss is noticed within NOTICED_S."""
        if self._lost.wait(NOTICED_S):
            raise RunFailed(self._line) from None

    def stop(self) -> None:
        self._stopped.set()


@contextlib.contextmanager
def ended_with_ray(started_here: bool) -> Iterator[Path | None]:
    """End this process if its Ray is lost during the block. `started_here`: this process has started it.

    Yields Ray's folder of the session, if a raylet of this machine tells. An error of the block that the loss has
    caused becomes RunFailed.
    """
    raylet = _find("raylet", f"--node_id={ray.get_runtime_context().get_node_id()}")
    folder = None if raylet is None else Path(_option(raylet.pid, "--session_dir"))
    servers = {"raylet": raylet}
    if started_here:
        servers["gcs_server"] = _find("gcs_server", f"--session-dir={folder}")
    found = [Server(name, server, Path(folder or "", "logs")) for name, server in servers.items() if server]
    watch = LossWatch(found, None if started_here else ray.get_runtime_context().gcs_address)
    threading.Thread(target=watch.watch, name="loss of Ray", daemon=True).start()
    try:
        yield folder
    except BadInput:
        raise
    except Exception:
        watch.raise_if_lost()
        raise
    finally:
        watch.stop()


def _find(name: str, argument: str) -> Process | None:
    """The process of any account with this program name and command-line argument. Other accounts may be hidden."""
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            words = command(int(entry.name))
            if os.path.basename(words[0] if words else "") == name and argument in words:
                return process(int(entry.name))
    return None


def _option(pid: int, name: str) -> str:
    return next(word.partition("=")[2] for word in command(pid) if word.startswith(f"{name}="))


def _accepts_connections(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError:
        return False
    return True


def _flush() -> None:
    with contextlib.suppress(Exception):
        sys.stdout.flush()
