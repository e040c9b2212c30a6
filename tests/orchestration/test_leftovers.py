"""What killed runs leave behind is found, and nothing else is taken for it."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration.commands.doctor import diagnose, leftovers
from orchestration.diagnosis.finding import Verdict
from orchestration.leftovers import BUILD_S, LEAST_BYTES, SERVERS, orphaned_processes, stale_locks, unmapped_segments


def remedies() -> dict[str, str]:
    """What `ser doctor` says to do about what would make a run fail."""
    return {finding.subject: finding.remedy for finding in diagnose(None) if finding.verdict is Verdict.FAILS}


def test_the_lock_of_a_killed_compilation_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    assert "build locks" not in remedies()
    lock = tmp_path / "py311_cpu/deepspeed_shm_comm/lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    os.utime(lock, (1, 1))
    assert stale_locks(tmp_path) == [str(lock)]
    assert f"rm {lock}" in remedies()["build locks"]
    assert lock.exists()


def test_the_lock_of_a_running_compilation_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Compiler:
        info = {"name": "ninja"}  # noqa: RUF012

    monkeypatch.setattr("orchestration.leftovers._processes", lambda *_: [Compiler()])
    (tmp_path / "op").mkdir()
    lock = tmp_path / "op/lock"
    lock.touch()
    assert stale_locks(tmp_path) == []
    os.utime(lock, (lock.stat().st_mtime - BUILD_S - 9,) * 2)
    assert stale_locks(tmp_path) == [str(lock)]


def test_shared_memory_that_nothing_uses_is_reported(tmp_path: Path) -> None:
    for name, size in (("used", LEAST_BYTES), ("unused", LEAST_BYTES), ("sem.small", 32)):
        (tmp_path / name).write_bytes(bytes(size))
    with (tmp_path / "used").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
        assert unmapped_segments(tmp_path) == [str(tmp_path / "unused")]
        assert f"rm {tmp_path}/unused" in leftovers(tmp_path)[0]
    assert (tmp_path / "unused").exists()


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """(pid, logs folder) of a process that writes its stdout into the session of a driver that has ended."""
    with subprocess.Popen(["true"]) as driver:
        driver.wait()
    logs = tmp_path / f"session_2026-11-26_21-18-00_123456_{driver.pid}/logs"
    logs.mkdir(parents=True)
    with (logs / "worker.out").open("w") as out, subprocess.Popen(["sleep", "60"], stdout=out) as process:
        yield process.pid, logs
        process.kill()


def test_a_ray_process_whose_node_has_ended_is_reported(worker: tuple[int, Path], tmp_path: Path) -> None:
    pid, _ = worker
    assert f"{pid} sleep" in orphaned_processes()
    (line,) = (line for line in leftovers(tmp_path) if "kill " in line)
    assert str(pid) in line.partition("kill ")[2].split()


@pytest.mark.parametrize("name", SERVERS)
def test_a_cluster_started_with_ray_start_is_not(worker: tuple[int, Path], tmp_path: Path, name: str) -> None:
    pid, logs = worker
    (tmp_path / name).symlink_to(str(shutil.which("tail")))
    command = [tmp_path / name, "-f", logs / "worker.out"]
    with (logs / f"{name}.out").open("w") as out, subprocess.Popen(command, stdout=out) as server:
        reported = {int(orphan.split()[0]) for orphan in orphaned_processes()}
        server.kill()
    assert not reported & {pid, server.pid}
    assert f"{pid} sleep" in orphaned_processes()


@pytest.mark.parametrize("key", ["TMPDIR", "RAY_TMPDIR"])
def test_a_temporary_folder_too_long_for_sockets_is_a_problem(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(key, "/tmp/" + "x" * 50)
    assert remedies()["TMPDIR"].startswith(f"{key} = /tmp/xxx")
    assert f"such as {key}=/tmp" in remedies()["TMPDIR"]
