"""What this machine has besides GPUs: packages, memory, disk, limits, decoders, a compiler, wandb."""

from __future__ import annotations

import netrc
import os
import platform
import resource
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from evidence.errors import BadInput, RunFailed
from evidence.files import FORK_SERVER, require_room_for_sockets
from orchestration.leftovers import extensions_folder, stale_locks
from orchestration.machine import GIB, SHARED_MEMORY, require_memory, require_short_ray_folder, version

PACKAGES = ("ray", "vllm", "deepspeed", "torch", "torchvision", "transformers", "decord", "omegaconf", "wandb", "numpy")
# CUDA builds fail to import beside a CPU torch, and transformers and vLLM import them if they are installed.
BREAKING = ("torchaudio", "torchcodec")
HOOK = "ser_torchvision_ops"  # makes a CUDA build of torchvision usable (install/torchvision_ops.py)
CGROUPS = Path("/sys/fs/cgroup")
# Triton compiles such a module for each kernel that it launches.
MODULE = "#include <Python.h>\nint f(void) { return PY_MAJOR_VERSION; }\n"
DECODE = "import rollout.frames.decoders"
ROOT = Path(__file__).parents[2]
WANDB = "api.wandb.ai"


@dataclass(frozen=True)
class MachineFacts:
    """packages: versions, None for those not installed. cuda_packages: those that break a CPU torch. cores,
    memory_gib, memory_free_gib: as the container allows. shared_gib, shared_free_gib: of /dev/shm. disk_free_gib: where
    a run writes. ray_disk_used: share of the file system of Ray's folder. store: why the object store does not fit.
    folders: why a temporary folder does not suit. files: most open files that a process may allow itself; threads:
    those that may still be started; None without a limit. decoders, compiler: why they do not work, or "". locks:
    those that killed compilations left. wandb_key: whether there is one. cluster: RAY_ADDRESS."""

    python: tuple[int, ...]
    packages: dict[str, str | None]
    cuda_packages: tuple[str, ...]
    cores: int
    memory_gib: float
    memory_free_gib: float
    shared_gib: float
    shared_free_gib: float
    disk_free_gib: float
    ray_disk_used: float
    store: str
    folders: tuple[str, ...]
    files: int | None
    threads: int | None
    decoders: str
    compiler: str
    locks: tuple[str, ...]
    wandb_key: bool
    cluster: str | None


def read_machine(store_gib: float, folder: str) -> MachineFacts:
    """store_gib: the object store to try. folder: where a run writes, which need not exist."""
    memory, shared = psutil.virtual_memory(), shutil.disk_usage(SHARED_MEMORY)
    room = cgroup_room("memory", CGROUPS)
    free = memory.available if room is None else min(memory.available, room)
    ray = shutil.disk_usage(_existing(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"))
    return MachineFacts(
        python=tuple(map(int, platform.python_version_tuple()[:2])),
        packages={package: version(package) for package in PACKAGES},
        cuda_packages=_cuda_packages(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=memory.total / GIB,
        memory_free_gib=free / GIB,
        shared_gib=shared.total / GIB,
        shared_free_gib=shared.free / GIB,
        disk_free_gib=shutil.disk_usage(_existing(folder)).free / GIB,
        ray_disk_used=ray.used / ray.total,
        store=_refused(lambda: require_memory(store_gib)) if store_gib else "",
        folders=tuple(filter(None, map(_refused, (require_short_ray_folder, _require_room_for_fork_server)))),
        files=_limit(resource.RLIMIT_NOFILE),
        threads=_threads(),
        decoders=_failure([sys.executable, "-c", DECODE]),
        compiler=_compiler(),
        locks=tuple(stale_locks(extensions_folder())),
        wandb_key=_wandb_key(),
        cluster=os.environ.get("RAY_ADDRESS"),
    )


def _existing(folder: str) -> Path:
    """The folder, or its nearest parent that exists."""
    return next(path for path in (Path(folder).absolute(), *Path(folder).absolute().parents) if path.exists())


def cgroup_room(resource_name: str, root: Path) -> int | None:
    """How much of a resource, such as "memory", this process's control groups still allow; None without a limit."""
    rooms = []
    for group in _groups(root):
        try:
            limit, used = (
                (group / f"{resource_name}.{name}").read_text(encoding="utf-8").strip() for name in ("max", "current")
            )
        except OSError:
            continue
        if limit != "max":
            rooms.append(int(limit) - int(used))
    return min(rooms, default=None)


def _groups(root: Path) -> list[Path]:
    """The control groups (version 2) of this process, from the root on, as far as the container shows them."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    path = next((line[3:] for line in lines if line.startswith("0::")), "/")
    names = [part for part in Path(path).parts if part not in ("/", "..")]
    return [root.joinpath(*names[:depth]) for depth in range(len(names) + 1)]


def _threads() -> int | None:
    """Threads that this account may still start. Root has no limit of its own."""
    rooms = [cgroup_room("pids", CGROUPS)]
    limit = _limit(resource.RLIMIT_NPROC)
    if limit is not None and os.getuid() != 0:
        own = [p for p in psutil.process_iter(["uids", "num_threads"]) if p.info["uids"]]
        rooms.append(limit - sum(p.info["num_threads"] or 0 for p in own if p.info["uids"].real == os.getuid()))
    return min((room for room in rooms if room is not None), default=None)


def _limit(kind: int) -> int | None:
    """The hard limit, to which Ray and vLLM raise their own."""
    limit = resource.getrlimit(kind)[1]
    return None if limit == resource.RLIM_INFINITY else limit


def _refused(check: Callable[[], None]) -> str:
    try:
        check()
    except (BadInput, RunFailed) as error:
        return str(error)
    return ""


def _require_room_for_fork_server() -> None:
    require_room_for_sockets(FORK_SERVER)


def _cuda_packages() -> tuple[str, ...]:
    if "+cpu" not in (version("torch") or ""):
        return ()
    breaking = BREAKING if find_spec(HOOK) else (*BREAKING, "torchvision")
    return tuple(package for package in breaking if "+cpu" not in (version(package) or "+cpu"))


def _failure(command: list[str], folder: Path = ROOT) -> str:
    """The last line of a failing command's errors; nothing if it succeeds."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return lines[-1] if done.returncode else ""


def _compiler() -> str:
    """Why no module with Python's headers can be compiled."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        return "no gcc or clang"
    with TemporaryDirectory() as folder:
        source = Path(folder, "module.c")
        source.write_text(MODULE, encoding="utf-8")
        include = f"-I{sysconfig.get_path('include')}"
        try:
            failure = _failure([compiler, include, "-shared", "-fPIC", str(source), "-o", f"{folder}/module.so"])
        except OSError as error:
            return f"CC = {compiler}: {error.strerror}"
    if failure and not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "Python's headers are missing"
    return failure


def _wandb_key() -> bool:
    """Whether wandb finds a key for its server."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = (os.environ.get("WANDB_BASE_URL") or f"https://{WANDB}").partition("//")[2].split("/")[0].split(":")[0]
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
