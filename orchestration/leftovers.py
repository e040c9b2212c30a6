"""What killed runs of this account left behind, also where no record tells whose it was. Nothing is removed here:
`ser doctor` says how."""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path

import psutil

from orchestration.supervision.local_session import LOGS
from orchestration.supervision.process_table import open_files

# PyTorch compiles an extension under a lock file, and waits for ever for one whose holder was killed. No extension
# takes this long to compile.
BUILD_S = 1800.0
LEAST_BYTES = 2**20  # smaller files in shared memory, such as semaphores, do not matter
SESSION = re.compile(r"session_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_\d+_(\d+)")
SERVERS = ("raylet", "gcs_server")  # a Ray node runs a raylet, and its head a GCS server too


def extensions_folder() -> Path:
    """The folder in which PyTorch compiles extensions."""
    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or Path.home() / ".cache/torch_extensions")


def stale_locks(folder: Path) -> list[str]:
    """Lock files of compilations that have ended, as far as their age or the absence of a compiler tells."""
    locks = [path for depth in ("*/lock", "*/*/lock") for path in folder.glob(depth)]
    if not locks:
        return []
    building = any(process.info["name"] in ("ninja", "c++", "g++", "cc1plus", "nvcc") for process in _processes("name"))
    return sorted(str(lock) for lock in locks if not building or time.time() - lock.stat().st_mtime > BUILD_S)


def unmapped_segments(folder: Path, least_bytes: int = LEAST_BYTES) -> list[str]:
    """Files of this account in shared memory, of `least_bytes` or more, that no process of this account has mapped or
    open."""
    used: set[str] = set()
    for process in _processes("pid"):
        with contextlib.suppress(OSError):
            maps = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8", errors="replace")
            used.update(line.split(maxsplit=5)[5] for line in maps.splitlines() if f" {folder}/" in line)
            for descriptor in os.scandir(f"/proc/{process.pid}/fd"):
                with contextlib.suppress(OSError):
                    used.add(os.readlink(descriptor.path))
    unused = []
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):
            status = entry.stat(follow_symlinks=False)
            if status.st_uid == os.getuid() and status.st_size >= least_bytes and entry.path not in used:
                unused.append(entry.path)
    return sorted(unused)


def orphaned_processes() -> list[str]:
    """Ray processes of this account that have outlived their node: "pid name" each.

    A Ray process writes a log in the folder of its session, and its children inherit one as stdout. The folder names
    the process that created it, which alone says little: after `ray start` it has ended, and on a further node it is
    another machine's.
    A session with a raylet or a GCS server on this machine is therefore never reported; those of a local session are
    killed by the kernel with their driver (ray/_private/services.py, `fate_share`).
    """
    alive: set[str] = set()
    sessions: dict[str, re.Match[str]] = {}
    for process in _processes("pid", "name", "cmdline"):
        if process.info["name"] in SERVERS:
            alive.update(match[0] for match in SESSION.finditer(" ".join(process.info["cmdline"] or ())))
        logs = (path for path, writable in open_files(process.pid) if writable and path.endswith(LOGS))
        if session := next(filter(None, map(SESSION.search, logs)), None):
            sessions[f"{process.pid} {process.info['name']}"] = session
    return [
        process
        for process, session in sessions.items()
        if session[0] not in alive and not psutil.pid_exists(int(session[1]))
    ]


def _processes(*attributes: str) -> list[psutil.Process]:
    """This account's processes, with `attributes` in their `info`."""
    uid = os.getuid()
    return [p for p in psutil.process_iter(["uids", *attributes]) if p.info["uids"] and p.info["uids"].real == uid]
