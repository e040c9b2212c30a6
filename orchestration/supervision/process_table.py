"""The processes of this account, read from /proc. Standard library only: the watcher of a session must stay small.

A process is identified by its pid and the time at which it started, so a pid that is used again is another process.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

SHARED_MEMORY = "/dev/shm"


@dataclass(frozen=True)
class Process:
    """`started`: clock ticks after the machine's start."""

    pid: int
    started: int
    parent: int


def process(pid: int) -> Process | None:
    """The process with this pid, unless it has ended. One that has ended and was not waited for has ended too."""
    with contextlib.suppress(OSError):
        # The name stands in parentheses and may hold any character. Fields after it: state, parent, …
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        if fields[0] not in (b"Z", b"X"):
            return Process(pid, int(fields[19]), int(fields[1]))
    return None


def is_running(pid: int, started: int) -> bool:
    found = process(pid)
    return found is not None and found.started == started


def own_processes() -> dict[int, Process]:
    """The processes of this account by pid, those that have ended left out."""
    uid, processes = os.geteuid(), {}
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if entry.stat().st_uid == uid and (found := process(int(entry.name))):
                    processes[found.pid] = found
    return processes


def with_descendants(roots: Collection[int], processes: dict[int, Process]) -> set[int]:
    """The pids of `roots` that are in `processes`, and of all their children, grandchildren, …"""
    children: dict[int, list[int]] = {}
    for child in processes.values():
        children.setdefault(child.parent, []).append(child.pid)
    reached, waiting = set(), [pid for pid in roots if pid in processes]
    while waiting:
        pid = waiting.pop()
        if pid not in reached:
            reached.add(pid)
            waiting += children.get(pid, ())
    return reached


def command(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return (
            Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="surrogateescape").rstrip("\0").split("\0")
        )
    return []


def environment(pid: int) -> list[bytes]:
    """NAME=value as the process started with them; empty for a process that has overwritten them with a title."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return []


def open_files(pid: int) -> Iterator[tuple[str, bool]]:
    """(path, whether it is open for writing) of each open file."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                yield os.readlink(entry.path), bool(entry.stat(follow_symlinks=False).st_mode & 0o200)


def shared_files(pid: int) -> set[int]:
    """Inodes of the files in shared memory that the process has mapped. A semaphore is mapped under another name than
    it has: it is renamed once it is ready."""
    inodes = set()
    with contextlib.suppress(OSError), Path(f"/proc/{pid}/maps").open("rb") as maps:
        for line in maps:
            if b" " + SHARED_MEMORY.encode() + b"/" in line:
                inodes.add(int(line.split(maxsplit=5)[4]))
    return inodes
