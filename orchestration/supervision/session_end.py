"""Ends what a session left running and removes what it left in shared memory and on disk.

Guarantees: nothing happens while the driver runs. A process is ended only while it has both the pid and the start time
by which it was found. It takes less than `GRACE_S + TERM_S + TRACKERS_S + KILL_S` seconds and little more.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from orchestration.supervision.local_session import LocalSession, Seen, left_behind
from orchestration.supervision.process_table import Process, command, is_running, open_files, own_processes

# Seconds. Ray's workers end by themselves within 5 s of their raylet, and a resource tracker once all others have.
GRACE_S, TERM_S, TRACKERS_S, KILL_S = 5.0, 5.0, 2.0, 5.0
POLL_S = 0.25


@dataclass(frozen=True)
class Removed:
    """Counts of what was ended and removed."""

    processes: int
    shared: int
    sockets: int
    locks: int

    def __str__(self) -> str:
        return (
            f"processes: {self.processes}, files in shared memory: {self.shared}, sockets: {self.sockets}, "
            f"build locks: {self.locks}, and temporary files"
        )


def end_session(session: LocalSession, seen: Seen, extensions: Path) -> Removed:
    """End and remove what is left of a session whose driver has ended. `extensions`: the folder in which PyTorch
    compiles extensions."""
    assert not session.driver_runs
    seen = session.look(seen, extensions)
    ended = _end_processes(session, seen)
    shared = session.shared_memory(seen)
    for path in shared:
        _unlink(path)
    locks = _stale(seen.locks)
    for path in locks:
        _unlink(path)
    sockets = _sockets(session)
    for path in sockets:
        _unlink(path)
    for folder in (*session.folders, str(session.folder)):
        shutil.rmtree(folder, ignore_errors=True)
    return Removed(ended, len(shared), len(sockets), len(locks))


def end_left_behind(extensions: Path) -> list[tuple[LocalSession, Removed]]:
    """End all sessions of this account that nothing watches any more."""
    return [
        (session, end_session(session, session.seen() or Seen(session.driver), extensions)) for session in left_behind()
    ]


def _end_processes(session: LocalSession, seen: Seen) -> int:
    """End the session's processes; returns how many did not end by themselves."""
    if not _running_after(session, seen, GRACE_S):
        return 0
    running = session.processes(seen)
    _signal(running, signal.SIGTERM)
    ended = set(running)
    # Resource trackers ignore SIGTERM, and remove shared memory before they end.
    for seconds, spared in ((TERM_S, _is_tracker), (TRACKERS_S, None)):
        running = _running_after(session, seen, seconds)
        ended |= set(running)
        _signal({pid: found for pid, found in running.items() if not (spared and spared(pid))}, signal.SIGKILL)
    _running_after(session, seen, KILL_S)
    return len(ended)


def _running_after(session: LocalSession, seen: Seen, seconds: float) -> dict[int, Process]:
    """The session's processes that run after so many seconds; returns early once there are none."""
    until = time.monotonic() + seconds
    while (running := session.processes(seen)) and time.monotonic() < until:
        time.sleep(POLL_S)
    return running


def _signal(processes: dict[int, Process], number: signal.Signals) -> None:
    for found in processes.values():
        if is_running(found.pid, found.started):
            with contextlib.suppress(ProcessLookupError):
                os.kill(found.pid, number)


def _is_tracker(pid: int) -> bool:
    return any("resource_tracker" in argument for argument in command(pid))


def _stale(locks: dict[str, int]) -> list[str]:
    """Those of `locks`, inode by path, that nothing holds any more."""
    held = {path for pid in own_processes() for path, _ in open_files(pid)} if locks else set()
    stale = []
    for path, inode in locks.items():
        with contextlib.suppress(OSError):
            if os.stat(path).st_ino == inode and path not in held:
                stale.append(path)
    return stale


def _sockets(session: LocalSession) -> list[str]:
    """Ray's sockets. Its logs stay: they say why a run failed. Sockets in the session's folder are removed with it."""
    return sorted(map(str, Path(session.ray, "sockets").glob("*"))) if session.ray else []


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
