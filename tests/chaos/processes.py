"""Finds the processes of one run: those of its own Ray session, which descend from its driver, and by kind.

Nothing here looks at processes by name alone, so other runs on the machine are never touched.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from vllm_cores import cores_of

from orchestration.leftovers import extensions_folder, stale_locks, unmapped_segments
from orchestration.supervision.local_session import NAMED_BY_PID

ACTORS = {
    "engine": "ray::RolloutActor",
    "referee": "ray::RefereeActor",
    "rank": "ray::LearnerRank",
    "weights": "ray::WeightsActor",
    "mirror": "ray::WeightMirror",
    "decoder": "ray::Decoder",
}
CORES = {"engine_core": "engine", "referee_core": "referee"}  # whose child it is
SERVERS = {"raylet": "raylet", "gcs": "gcs_server"}
TARGETS = (*ACTORS, *CORES, *SERVERS, "driver")
SOCKETS = ("ser_*", "ray/session_2*/sockets/*")
SHARED_MEMORY = Path("/dev/shm")
SEGMENTS = ("sem.", "torch_", "psm_", "plasma")  # as those of runs are named; other programs make others
MARK = "SER_CHAOS_RUN"  # an environment variable that all processes of a start inherit


def find(target: str, driver: int) -> list[psutil.Process]:
    """The processes of one kind that run now, oldest first. `driver`: the pid of the run's driver."""
    if target == "driver":
        return [psutil.Process(driver)]
    running = [process for process in psutil.Process(driver).children(recursive=True) if runs(process)]
    if target in SERVERS:
        matching = [process for process in running if _name(process) == SERVERS[target]]
    elif target in CORES:
        actors = [process for process in running if _title(process) == ACTORS[CORES[target]]]
        matching = [core for actor in actors for core in cores_of(actor)]
    else:
        matching = [process for process in running if _title(process) == ACTORS[target]]
    return sorted(matching, key=lambda process: (process.create_time(), process.pid))


def marked(mark: str) -> list[psutil.Process]:
    """The processes that were started with MARK=`mark` in their environment, wherever they descend from now."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and runs(process):
                found.append(process)
    return found


def files_of_runs(temporary: Path) -> set[str]:
    """What runs can leave behind: sockets in `temporary`; shared memory, semaphores included, that no process has
    mapped; and locks that would block a compilation."""
    sockets = {str(path) for pattern in SOCKETS for path in temporary.glob(pattern)}
    segments = unmapped_segments(SHARED_MEMORY, least_bytes=0)
    shared = {path for path in segments if Path(path).name.startswith(SEGMENTS)}
    return sockets.union(shared, stale_locks(extensions_folder()))


def left_after(mark: str, temporary: Path, before: set[str], seconds: float) -> tuple[list[str], float]:
    """(what is still left of a start when `seconds` are over, how long it took to go). `temporary`: its TMPDIR.
    `before`: the `files_of_runs` before the start. Semaphores of other runs, whose makers are alive, do not count."""
    began = time.monotonic()
    while left := [_title(p) or _name(p) for p in marked(mark)] + [
        path for path in files_of_runs(temporary) - before if not _maker_runs(Path(path).name)
    ]:
        if time.monotonic() - began > seconds:
            break
        time.sleep(0.5)
    return sorted(left), time.monotonic() - began


def still_there(pids: Sequence[int], seconds: float) -> list[int]:
    """Those of the processes that are left when they have had `seconds` to end."""
    processes = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(pid))
    deadline = time.monotonic() + seconds
    while (left := list(filter(runs, processes))) and time.monotonic() < deadline:
        time.sleep(0.2)
    return [process.pid for process in left]


def end(mark: str) -> None:
    """Kill what is left of a start; a stopped process, too."""
    for _ in range(20):
        if not (processes := marked(mark)):
            return
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(processes, timeout=1)


def _maker_runs(name: str) -> bool:
    maker = NAMED_BY_PID.match(name)
    return maker is not None and psutil.pid_exists(int(maker[1]))


def runs(process: psutil.Process) -> bool:
    """Whether it is alive, or stopped, and not a zombie."""
    with contextlib.suppress(psutil.Error):
        return process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    return False


def _name(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return process.name()
    return ""


def _title(process: psutil.Process) -> str:
    """The title that Ray and vLLM give to a process, without the method that an actor runs."""
    with contextlib.suppress(psutil.Error):
        title = (process.cmdline() or [""])[0].split(".")[0].strip()
        return title if "::" in title else ""
    return ""
