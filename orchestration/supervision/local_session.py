"""What belongs to one local Ray: its processes, shared memory, sockets and temporary files.

A session has a folder, which is TMPDIR for the driver and all processes of its Ray while the session lasts. Whatever
they put there (sockets of vLLM and of Python's fork server, scratch files) is the session's and is removed with it.
The folder also holds two records: one by the driver, one by the watcher.

A process belongs to the session if it started after the session began and

- it was seen among the driver's descendants, or descends from a process of the session, or
- it has a log of the session's Ray open for writing, or
- it was started with the session's folder as TMPDIR.

So other runs, clusters that were joined, and a `tail` of the session's logs do not. A session of another machine,
container or boot, whose processes cannot be seen, is never reported as ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from evidence.files import whole_file
from orchestration.supervision.process_table import (
    SHARED_MEMORY,
    Process,
    command,
    environment,
    is_running,
    open_files,
    own_processes,
    process,
    shared_files,
    with_descendants,
)

PREFIX = "ser_"
WATCHER = "orchestration.supervision.session_watcher"
DRIVERS_RECORD, WATCHERS_RECORD = "session.json", "seen.json"
LOGS = (".log", ".out", ".err")
# Files in shared memory whose names hold the pid of the process that made them. The semaphores are multiprocessing's,
# which joblib renames. vLLM's stay behind whenever Ray kills an engine together with the engine's resource tracker.
NAMED_BY_PID = re.compile(r"(?:sem\.loky-|torch_)(\d+)[-_]")
WORKERS_LOG = re.compile(r"worker-.*-(\d+)\.out")


@dataclass(frozen=True)
class Seen:
    """What the watcher has seen of a session. `processes`: start time by pid, ended ones included. `shared`: inodes of
    files in shared memory. `locks`: inode by path of build locks that were held."""

    watcher: Process
    processes: dict[int, int] = field(default_factory=dict)
    shared: frozenset[int] = frozenset()
    locks: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class LocalSession:
    """`began`: clock ticks after the machine's start. `ray`: Ray's folder of the session, once Ray has started.
    `place`: boot and process namespace, in which alone pids have a meaning. `folders`: more folders to remove."""

    folder: Path
    driver: Process
    began: int
    place: list[Any]
    ray: str | None = None
    folders: tuple[str, ...] = ()

    @classmethod
    def begin(cls) -> LocalSession:
        """Create the folder of a session whose driver is this process."""
        driver = process(os.getpid())
        assert driver is not None
        began = int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")) - 1
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        session = cls(folder, driver, began, _place(), folders=_fork_servers_folder())
        session._write()
        return session

    @classmethod
    def read(cls, folder: Path) -> LocalSession:
        """Raises OSError or ValueError if the folder holds no session."""
        record = json.loads((folder / DRIVERS_RECORD).read_text(encoding="utf-8"))
        driver, folders = Process(**record.pop("driver")), tuple(record.pop("folders"))
        return cls(folder, driver=driver, folders=folders, **record)

    def with_ray(self, ray: Path) -> LocalSession:
        """The session, recorded with Ray's folder."""
        session = replace(self, ray=str(ray))
        session._write()
        return session

    def _write(self) -> None:
        record = asdict(self)
        del record["folder"]
        _write_record(self.folder / DRIVERS_RECORD, record)

    def write_seen(self, seen: Seen) -> None:
        _write_record(self.folder / WATCHERS_RECORD, asdict(seen) | {"shared": sorted(seen.shared)})

    def seen(self) -> Seen | None:
        """What the watcher has recorded; None before its first record."""
        try:
            record = json.loads((self.folder / WATCHERS_RECORD).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        processes = {int(pid): started for pid, started in record["processes"].items()}
        return Seen(Process(**record["watcher"]), processes, frozenset(record["shared"]), record["locks"])

    @property
    def driver_runs(self) -> bool:
        return is_running(self.driver.pid, self.driver.started)

    @property
    def is_left_behind(self) -> bool:
        """Whether driver and watcher have ended, as far as this process can see."""
        if self.place != _place() or self.driver_runs:
            return False
        seen = self.seen()
        return seen is None or not is_running(seen.watcher.pid, seen.watcher.started)

    def processes(self, seen: Seen) -> dict[int, Process]:
        """The session's running processes by pid, without the driver and watchers.

        Open files and environments are read only once the driver has ended; until then its descendants are known.
        """
        table = own_processes()
        roots = {pid for pid, started in seen.processes.items() if pid in table and table[pid].started == started}
        if self.driver_runs:
            roots.add(self.driver.pid)
        else:
            roots |= {pid for pid, found in table.items() if found.started >= self.began and self._is_marked(pid)}
        own = with_descendants(roots, table) - {self.driver.pid, os.getpid()}
        return {pid: table[pid] for pid in own if table[pid].started >= self.began and WATCHER not in command(pid)}

    def _is_marked(self, pid: int) -> bool:
        if b"TMPDIR=" + os.fsencode(self.folder) in environment(pid):
            return True
        logs = f"{self.ray}/logs/"
        return self.ray is not None and any(
            writable and path.startswith(logs) and path.endswith(LOGS) for path, writable in open_files(pid)
        )

    def look(self, seen: Seen, locks_below: Path) -> Seen:
        """`seen` and what the session has now. `locks_below`: the folder in which PyTorch compiles extensions."""
        processes, shared, locks = self.processes(seen), set(seen.shared), {}
        for pid in processes:
            shared |= shared_files(pid)
            for path, _ in open_files(pid):
                if path.startswith(f"{locks_below}/") and path.endswith("/lock"):
                    with contextlib.suppress(OSError):
                        locks[path] = os.stat(path).st_ino
        return replace(
            seen,
            processes=seen.processes | {pid: found.started for pid, found in processes.items()},
            shared=frozenset(shared & {entry.inode() for entry in os.scandir(SHARED_MEMORY)}),
            locks=seen.locks | locks,
        )

    def _workers(self) -> set[int]:
        """The pids of all workers that Ray has started, those included that ended before the watcher saw them."""
        logs = Path(self.ray, "logs").glob("worker-*.out") if self.ray else ()
        return {int(match[1]) for log in logs if (match := WORKERS_LOG.fullmatch(log.name))}

    def shared_memory(self, seen: Seen) -> list[str]:
        """The session's files in shared memory that no process of this account uses."""
        own, pids = [], {self.driver.pid, *seen.processes, *self._workers()}
        for entry in os.scandir(SHARED_MEMORY):
            named = NAMED_BY_PID.match(entry.name)
            if entry.inode() in seen.shared or (named and int(named[1]) in pids):
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if status.st_uid == os.geteuid() and status.st_mtime >= _wall_time(self.began):
                        own.append(entry)
        used = {inode for pid in own_processes() for inode in shared_files(pid)} if own else set()
        return [entry.path for entry in own if entry.inode() not in used]


def left_behind() -> list[LocalSession]:
    """The sessions of this account in the temporary folder whose driver and watcher have ended."""
    sessions = []
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # anything else of that name
            if folder.stat().st_uid == os.geteuid() and (session := LocalSession.read(folder)).is_left_behind:
                sessions.append(session)
    return sessions


def _place() -> list[Any]:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return [boot, os.stat("/proc/self/ns/pid").st_ino]


def _wall_time(ticks: int) -> float:
    """Seconds since 1970, a little early: the clock may have been adjusted since."""
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return booted + ticks / os.sysconf("SC_CLK_TCK") - 2.0


def _fork_servers_folder() -> tuple[str, ...]:
    """The temporary folder that multiprocessing has made in this process, if it has. It keeps no public record."""
    from multiprocessing.process import current_process

    folder = getattr(current_process(), "_config", {}).get("tempdir")
    return (folder,) if folder else ()


def _write_record(path: Path, record: dict[str, Any]) -> None:
    with whole_file(path, durable=False) as part:
        part.write_text(json.dumps(record), encoding="utf-8")
