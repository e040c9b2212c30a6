"""What belongs to a session is told from what does not, and only the former is ended and removed."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestration.commands.doctor import leftovers
from orchestration.supervision import local_session, process_table, session_end
from orchestration.supervision.local_session import WATCHER, LocalSession, Seen, left_behind
from orchestration.supervision.process_table import Process, is_running, process
from orchestration.supervision.session_end import end_left_behind, end_session

SLEEP = [sys.executable, "-c", "print(flush=True); import time; time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, end='', flush=True); time.sleep(60)",
]
HOLDING = """
import mmap, sys, time
segment, lock = open(sys.argv[1], "r+b"), open(sys.argv[2], "w")
mapped = mmap.mmap(segment.fileno(), 0)
print(flush=True)
time.sleep(60)
"""
Start = Callable[..., int]


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions and shared memory in folders of the test's own, and short waits."""
    for name in ("tmp", "shm", "ray/logs", "ray/sockets"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    for module in (local_session, process_table):
        monkeypatch.setattr(module, "SHARED_MEMORY", str(tmp_path / "shm"))
    for name in ("GRACE_S", "TERM_S", "TRACKERS_S"):
        monkeypatch.setattr(session_end, name, 0.3)


@pytest.fixture
def session(tmp_path: Path) -> LocalSession:
    """A session whose driver has ended."""
    with subprocess.Popen(["true"]) as driver:
        driver.wait()
    session = replace(LocalSession.begin(), driver=Process(driver.pid, 1, 1))
    return session.with_ray(tmp_path / "ray")


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process that sleeps, once it runs its code; returns its pid."""
    processes = []

    def started(arguments: list[str] = SLEEP, env: dict[str, str] | None = None, **options: object) -> int:
        read, write = os.pipe()
        options = {"stdout": write, **options}
        child = subprocess.Popen(arguments, env=os.environ | (env or {}), **options)
        os.close(write)
        if options["stdout"] == write:
            os.read(read, 1)
        os.close(read)
        processes.append(child)
        return child.pid

    yield started
    for child in processes:
        child.kill()
        child.wait()


def seen(*pids: int, **more: object) -> Seen:
    found = [process(pid) for pid in pids]
    return Seen(Process(1, 1, 0), {known.pid: known.started for known in found if known}, **more)


def test_marked_processes_are_the_sessions(session: LocalSession, start: Start) -> None:
    with Path(session.ray, "logs/agent.log").open("w") as log:
        own = {start(env={"TMPDIR": str(session.folder)}), start(stdout=log)}
        foreign = {start(), start(env={"TMPDIR": f"{session.folder}x"})}
        foreign.add(start(["tail", "-f", log.name], stdout=subprocess.DEVNULL))
        with Path(session.ray, "logs/.agent.log.swp").open("w") as editor:
            foreign.add(start(stdout=editor))
        time.sleep(0.2)
        found = session.processes(seen())
    assert set(found) == own


def test_children_of_seen_processes_are_the_sessions(session: LocalSession, start: Start) -> None:
    shell = start(["sh", "-c", "sleep 60 & echo; wait"])
    assert session.processes(seen()) == {}
    found = session.processes(seen(shell))
    assert len(found) == 2
    assert shell in found
    assert {known.parent for known in found.values()} == {shell, os.getpid()}


def test_a_pid_that_is_used_again_is_another_process(session: LocalSession, start: Start) -> None:
    pid = start()
    known = process(pid)
    assert known is not None
    assert session.processes(Seen(known, {pid: known.started})).keys() == {pid}
    assert session.processes(Seen(known, {pid: known.started - 1})) == {}


def test_processes_older_than_the_session_and_watchers_are_not_its_own(session: LocalSession, start: Start) -> None:
    pid = start(env={"TMPDIR": str(session.folder)})
    watcher = start([*SLEEP, WATCHER], env={"TMPDIR": str(session.folder)})
    assert session.processes(seen(watcher)).keys() == {pid}
    known = process(pid)
    assert known is not None
    assert replace(session, began=known.started + 1).processes(seen(pid)) == {}


def test_a_session_in_use_or_of_another_place_is_not_left_behind(session: LocalSession, start: Start) -> None:
    assert left_behind() == [session]
    assert f"process {session.driver.pid} left in {session.folder}" in leftovers(session.folder)[0]
    record = session.folder / "session.json"
    text = record.read_text()
    for change in ({"place": ["another boot", 1]}, {"driver": vars(process(os.getpid()))}):
        record.write_text(json.dumps(json.loads(text) | change))
        assert left_behind() == []
    record.write_text(text)
    watcher = process(start())
    assert watcher is not None
    session.write_seen(Seen(watcher))
    assert left_behind() == []
    session.write_seen(Seen(replace(watcher, started=1)))
    assert left_behind() == [session]
    record.write_text("{")
    assert left_behind() == []


def test_shared_memory_is_known_by_pid_or_inode(session: LocalSession, tmp_path: Path) -> None:
    shm = tmp_path / "shm"
    Path(session.ray, "logs/worker-0f-01-4004.out").touch()
    for name in ("sem.loky-4001-a", "torch_4002_1_0", "sem.loky-4004-b", "sem.loky-400-c", "psm_own", "psm_used"):
        (shm / name).write_bytes(bytes(32))
    for name in ("sem.loky-4003-old", "psm_foreign"):
        (shm / name).write_bytes(bytes(32))
    os.utime(shm / "sem.loky-4003-old", (1, 1))
    pids = {4001: 1, 4002: 1, 4003: 1}
    inodes = frozenset((shm / name).stat().st_ino for name in ("psm_own", "psm_used"))
    with (shm / "psm_used").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
        own = session.shared_memory(replace(seen(), processes=pids, shared=inodes))
    assert {Path(path).name for path in own} == {"sem.loky-4001-a", "torch_4002_1_0", "sem.loky-4004-b", "psm_own"}


def test_a_look_notes_processes_shared_memory_and_locks(session: LocalSession, start: Start, tmp_path: Path) -> None:
    segment, lock = tmp_path / "shm/psm", tmp_path / "extensions/op/lock"
    segment.write_bytes(bytes(32))
    lock.parent.mkdir(parents=True)
    pid = start([sys.executable, "-c", HOLDING, segment, lock], env={"TMPDIR": str(session.folder)})
    noted = session.look(seen(), tmp_path / "extensions")
    session.write_seen(noted)
    assert session.seen() == noted
    assert noted.processes.keys() == {pid}
    assert noted.shared == {segment.stat().st_ino}
    assert noted.locks == {str(lock): lock.stat().st_ino}
    # The file is gone: its inode may be used again.
    segment.unlink()
    assert session.look(noted, tmp_path / "extensions").shared == frozenset()


def test_a_session_is_ended_and_nothing_else(session: LocalSession, start: Start, tmp_path: Path) -> None:
    mark = {"TMPDIR": str(session.folder)}
    own, foreign = [start(env=mark), start(STUBBORN, env=mark)], start()
    listener, log = Path(session.ray, "sockets/raylet"), Path(session.ray, "logs/raylet.out")
    segment, other = tmp_path / f"shm/sem.loky-{own[0]}-a", tmp_path / "shm/sem.loky-1-a"
    stale, replaced = tmp_path / "lock", tmp_path / "replaced/lock"
    replaced.parent.mkdir()
    for path in (listener, log, segment, other, stale, replaced, session.folder / "scratch"):
        path.touch()
    locks = {str(stale): stale.stat().st_ino, str(replaced): replaced.stat().st_ino + 1}
    session.write_seen(seen(locks=locks))
    ((ended, removed),) = end_left_behind(tmp_path / "extensions")
    assert ended == session
    assert str(removed) == ("processes: 2, files in shared memory: 1, sockets: 1, build locks: 1, and temporary files")
    assert not any(process(pid) for pid in own)
    assert process(foreign)
    assert not any(path.exists() for path in (listener, segment, stale, session.folder))
    assert all(path.exists() for path in (log, other, replaced))
    assert end_left_behind(tmp_path / "extensions") == []


def test_a_held_lock_stays(session: LocalSession, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    noted = seen(locks={str(lock): lock.stat().st_ino})
    with lock.open():
        end_session(session, noted, tmp_path)
        assert lock.exists()
    end_session(session, noted, tmp_path)
    assert not lock.exists()


def test_nothing_is_ended_while_the_driver_runs(tmp_path: Path) -> None:
    session = LocalSession.begin()
    assert session.driver_runs
    with pytest.raises(AssertionError):
        end_session(session, seen(), tmp_path)
    assert session.folder.exists()


def test_a_process_that_was_not_waited_for_has_ended() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        known = process(child.pid)
        assert known is not None
        assert is_running(child.pid, known.started)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not is_running(child.pid, known.started)
