"""A local Ray ends with its driver, and the driver with its Ray, however either is killed. Other runs go on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestration.supervision import ray_loss
from orchestration.supervision.local_session import WATCHER, LocalSession
from orchestration.supervision.process_table import command, open_files, own_processes
from orchestration.supervision.ray_loss import LossWatch, Server

ROOT = Path(__file__).parents[3]
LIMIT_S = 60.0
# Prints one line once its actor runs, and one more for each line that it reads. The actor leaves behind what a killed
# vLLM engine does: a semaphore that only a resource tracker would remove, a socket, and a process that no longer has
# anything to do with its parents.
DRIVER = """
import os, signal, sys
import ray
from evidence.errors import RunFailed
from orchestration.streams import say
from orchestration.supervision.cluster import start_ray

@ray.remote(num_cpus=0)
class Engine:
    def start(self):
        import multiprocessing, socket, subprocess, tempfile
        import joblib.externals.loky
        self.lock = multiprocessing.get_context("spawn").Lock()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(tempfile.mkdtemp() + "/socket")
        null = subprocess.DEVNULL
        return subprocess.Popen(["sleep", "600"], stdout=null, stderr=null, start_new_session=True).pid

def main():
    with start_ray(0.1):
        signal.signal(signal.SIGTERM, lambda *_: None)
        engine = Engine.remote()
        child = ray.get(engine.start.remote())
        print(child, os.environ.get("TMPDIR"), flush=True)
        for _ in sys.stdin:
            ray.get(engine.__ray_ready__.remote())
            print("works", flush=True)

try:
    main()
except RunFailed as error:
    say(f"ser: {error}")
    sys.exit(1)
"""


class Driver:
    """A driver with a local Ray, or one that has joined `address`."""

    def __init__(self, address: str | None = None):
        self.before = set(os.listdir("/dev/shm"))
        env = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "TMPDIR")}
        env |= {"PYTHONPATH": str(ROOT)} | ({"RAY_ADDRESS": address} if address else {})
        pipes: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        command = [sys.executable, "-c", DRIVER]
        self.process = subprocess.Popen(command, env=env, cwd=ROOT, text=True, process_group=0, **pipes)

    def started(self) -> Driver:
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        child, folder = line.split()
        self.child, self.folder = int(child), Path(folder)
        if self.folder.name.startswith("ser_"):
            self.session = LocalSession.read(self.folder)
            self.watcher = self.session.seen().watcher.pid
        return self

    def works(self) -> bool:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.process.stdout.readline() == "works\n"

    def server(self, name: str) -> int:
        (pid,) = (child.pid for child in psutil.Process(self.process.pid).children() if child.name() == name)
        return pid

    def processes(self) -> list[str]:
        """Processes other than the driver that have to do with the session, found by other means than the code's."""
        logs = f"{self.session.ray}/"
        found = []
        for pid in own_processes():
            words, files = command(pid), [path for path, _ in open_files(pid)]
            if pid in (self.child, self.watcher) or any(path.startswith(logs) for path in (*files, *words)):
                found.append(f"{pid} {' '.join(words)[:60]}")
        return [line for line in found if int(line.split()[0]) != self.process.pid]

    def left(self) -> list[str]:
        sockets = Path(self.session.ray, "sockets")
        shared = [name for name in set(os.listdir("/dev/shm")) - self.before if self._is_own(name)]
        return [*self.processes(), *map(str, sockets.iterdir()), *shared, *([str(self.folder)] * self.folder.exists())]

    def _is_own(self, name: str) -> bool:
        workers = {log.stem.rpartition("-")[2] for log in Path(self.session.ray, "logs").glob("worker-*.out")}
        return name.startswith("sem.loky-") and name.split("-")[1] in workers

    def errors(self) -> list[str]:
        """Lines on stderr, those left out that a busy machine adds while Ray starts."""
        return [line for line in self.process.stderr.read().splitlines() if not line.startswith("waiting for ")]

    def wait_until_nothing_is_left(self) -> None:
        end = time.monotonic() + LIMIT_S
        while left := self.left():
            assert time.monotonic() < end, left
            time.sleep(0.2)


@pytest.fixture
def driver() -> Iterator[Callable[..., Driver]]:
    drivers = []

    def started(*arguments: Any) -> Driver:
        drivers.append(Driver(*arguments))
        return drivers[-1]

    yield started
    for each in drivers:
        each.process.kill()
        each.process.wait()
        for stream in (each.process.stdin, each.process.stdout, each.process.stderr):
            stream.close()


@pytest.mark.slow
def test_a_signal_to_the_process_group_of_the_driver_leaves_its_ray_alone(driver: Callable[..., Driver]) -> None:
    run = driver().started()
    os.killpg(run.process.pid, signal.SIGTERM)  # as `timeout` and `kill %1` do; the driver would save a checkpoint
    time.sleep(1.0)
    for server in ("raylet", "gcs_server"):
        assert psutil.Process(run.server(server)).status() != psutil.STATUS_ZOMBIE
    assert run.works()


@pytest.mark.slow
def test_a_killed_driver_leaves_nothing_and_another_run_goes_on(driver: Callable[..., Driver]) -> None:
    killed, other = driver(), driver()
    killed.started(), other.started()
    assert psutil.Process(killed.watcher).memory_info().rss < 25 * 2**20
    assert len(killed.processes()) > 6
    assert any(killed._is_own(name) for name in os.listdir("/dev/shm"))
    os.killpg(killed.watcher, signal.SIGTERM)  # which ignores it
    killed.process.kill()
    killed.wait_until_nothing_is_left()
    assert Path(killed.session.ray, "logs/raylet.out").exists()
    assert other.works()
    # Nothing sees to the other run's end.
    os.kill(other.watcher, signal.SIGKILL)
    other.process.kill()
    third = driver().started()
    other.wait_until_nothing_is_left()
    third.process.stdin.close()
    (line,) = third.errors()
    assert line.startswith(f"removed what the killed run of process {other.process.pid} left: processes: ")
    assert third.process.wait(LIMIT_S) == 0
    third.wait_until_nothing_is_left()


@pytest.mark.slow
def test_the_loss_of_ray_is_one_line_and_leaves_nothing(driver: Callable[..., Driver]) -> None:
    drivers = {"raylet": driver(), "gcs_server": driver()}
    for name, bereft in drivers.items():
        os.kill(bereft.started().server(name), signal.SIGKILL)
    for name, bereft in drivers.items():
        assert bereft.process.wait(LIMIT_S) == 1
        (line,) = bereft.errors()
        log = f"{bereft.session.ray}/logs/{name}.err"
        assert line.startswith(f"ser: Ray's {name} on this machine died ({log} may say why); ser train with resume")
        bereft.wait_until_nothing_is_left()


@pytest.mark.slow
def test_a_joined_cluster_outlives_its_driver(driver: Callable[..., Driver], ray_cluster: Any) -> None:
    address = ray_cluster.get_runtime_context().gcs_address
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    joined = driver(address).started()
    assert joined.works()
    assert not any(WATCHER in command(child.pid) for child in psutil.Process(joined.process.pid).children())
    joined.process.kill()
    joined.process.wait()
    os.kill(joined.child, signal.SIGKILL)
    time.sleep(2.0)
    assert ray_cluster.get(ray_cluster.remote(lambda: 1).remote()) == 1
    names = {child.name() for child in psutil.Process().children(recursive=True) if child.pid in before}
    assert names >= {"raylet", "gcs_server"}


def test_a_server_that_died_is_named() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        known = own_processes()[child.pid]
        watch = LossWatch([Server("raylet", known, Path("/logs"))])
        assert watch.loss() is None
        child.kill()
        child.wait()
        assert str(watch.loss()).startswith("Ray's raylet on this machine died (/logs/raylet.err may say why); ")


def test_an_unreachable_head_is_a_loss_only_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_loss, "CONNECT_S", 0.05)
    monkeypatch.setattr(ray_loss, "UNREACHABLE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        watch = LossWatch([], address)
        time.sleep(0.6)
        assert watch.loss() is None
    time.sleep(0.1)
    assert watch.loss() is None
    time.sleep(0.6)
    assert str(watch.loss()).startswith(
        f"Ray's head at {address} has not been reached for 0.5 s; ser train with resume="
    )
