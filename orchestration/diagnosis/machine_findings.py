"""Whether packages, memory, disk, limits and tools of this machine are those that a run needs. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from orchestration.diagnosis.finding import Finding, Needs, Verdict
from orchestration.diagnosis.machine_facts import MachineFacts

PYTHON = (3, 11)
MAKE_USABLE = "python -m ser_files.install.torchvision_ops; in a checkout: make install"
MOST_DISK_USED = 0.95  # Ray stores no objects any more where its folder is fuller
# Ray and vLLM raise their own limit of open files to the hard one. vLLM asks for 65,535, and Ray warns below 4,096.
FILES, LEAST_FILES = 65_535, 4_096
# Threads of a run. On a CPU with the embedded models, Ray and the command had 250, each engine 110 and each rank 30;
# on GPUs, CUDA and NCCL start some more in each.
BASE_THREADS, PROCESS_THREADS = 400, 150


def machine_findings(facts: MachineFacts, needs: Needs) -> Iterator[Finding]:
    """The rows on all that is no GPU."""
    yield from _software(facts)
    yield _of("cores", str(facts.cores))
    yield _memory(facts, needs)
    yield _shared(facts, needs)
    yield _store(facts, needs)
    yield _disk(facts, needs)
    yield _ray_disk(facts)
    yield _files(facts)
    yield _threads(facts, needs)
    yield _folders(facts)
    yield _compiler(facts, needs)
    yield _locks(facts)
    yield _wandb(facts, needs)


def _of(subject: str, seen: str, fails: bool = False, remedy: str = "") -> Finding:
    """A row that is well, or fails with a remedy."""
    return Finding(Verdict.FAILS, subject, seen, remedy) if fails else Finding(Verdict.OK, subject, seen)


def _software(facts: MachineFacts) -> Iterator[Finding]:
    python = ".".join(map(str, facts.python))
    yield _of("python", python, facts.python != PYTHON, "make install with PYTHON=/path/to/python3.11")
    for package, version in facts.packages.items():
        if package not in facts.cuda_packages:
            yield _of(package, version or "not installed", version is None, "make install")
    for package in facts.cuda_packages:
        remedy = MAKE_USABLE if package == "torchvision" else f"pip uninstall {package}"
        yield _of(package, "a CUDA build, which breaks transformers here", True, remedy)
    broken = bool(facts.decoders)
    yield _of("decoders", facts.decoders or "decord, PyAV and OpenCV load", broken, "install what the message names")


def _memory(facts: MachineFacts, needs: Needs) -> Finding:
    seen = f"{facts.memory_free_gib:.1f} GiB free of {facts.memory_gib:.1f}"
    if facts.memory_free_gib >= needs.memory_gib:
        return Finding(Verdict.OK, "memory", seen)
    remark = f"a run may take up to {needs.memory_gib:.1f} GiB, which `ser plan` lists by component"
    return Finding(Verdict.NOTE, "memory", seen, remark)


def _shared(facts: MachineFacts, needs: Needs) -> Finding:
    seen = f"{facts.shared_free_gib:.2f} GiB free of {facts.shared_gib:.2f}"
    remedy = f"the object store takes {needs.store_gib:g} GiB of it; mount more, in Docker by --shm-size"
    return _of("/dev/shm", seen, facts.shared_free_gib < needs.store_gib, remedy)


def _store(facts: MachineFacts, needs: Needs) -> Finding:
    if facts.cluster is not None:
        remark = "its object store and the GPUs of its other nodes are not judged here"
        return Finding(Verdict.NOTE, "cluster", f"RAY_ADDRESS = {facts.cluster}", remark)
    fits = "does not fit" if facts.store else "fits"
    return _of("object store", f"of {needs.store_gib:g} GiB {fits}", bool(facts.store), facts.store)


def _disk(facts: MachineFacts, needs: Needs) -> Finding:
    free = facts.disk_free_gib
    remedy = f"a run needs about {needs.disk_gib:.1f} GiB for its model and checkpoints; free some, or set run_dir"
    return _of("disk", f"{free:.1f} GiB free in {needs.folder}", free < needs.disk_gib, remedy)


def _ray_disk(facts: MachineFacts) -> Finding:
    seen, full = f"{facts.ray_disk_used:.0%} used", facts.ray_disk_used > MOST_DISK_USED
    return _of("disk of TMPDIR", seen, full, f"Ray stops above {MOST_DISK_USED:.0%}; free some, or set TMPDIR")


def _files(facts: MachineFacts) -> Finding:
    if facts.files is None or facts.files >= FILES:
        return _of("open files", "no limit" if facts.files is None else f"up to {facts.files}")
    verdict = Verdict.FAILS if facts.files < LEAST_FILES else Verdict.NOTE
    remedy = f"raise the hard limit to {FILES}: ulimit -Hn, limits.conf, or docker run --ulimit nofile={FILES}"
    return Finding(verdict, "open files", f"up to {facts.files}", remedy)


def _threads(facts: MachineFacts, needs: Needs) -> Finding:
    wanted = BASE_THREADS + PROCESS_THREADS * needs.processes
    seen = "no limit" if facts.threads is None else f"{facts.threads} more threads may be started"
    remedy = f"a run starts about {wanted}; raise ulimit -u, or the container's limit of processes (--pids-limit)"
    return _of("processes", seen, facts.threads is not None and facts.threads < wanted, remedy)


def _folders(facts: MachineFacts) -> Finding:
    length = "too long" if facts.folders else "short enough"
    return _of("TMPDIR", f"{length} for sockets", bool(facts.folders), "; ".join(facts.folders))


def _compiler(facts: MachineFacts, needs: Needs) -> Finding:
    if not needs.gpus:
        return _of("compiler", "needed on GPUs only" if facts.compiler else "works")
    remedy = "Triton compiles kernels; install gcc and python3.11-dev"
    return _of("compiler", facts.compiler or "works", bool(facts.compiler), remedy)


def _locks(facts: MachineFacts) -> Finding:
    remedy = f"a killed run left locks that make others wait for ever; rm {' '.join(facts.locks)}"
    return _of("build locks", f"{len(facts.locks)} left" if facts.locks else "none", bool(facts.locks), remedy)


def _wandb(facts: MachineFacts, needs: Needs) -> Finding:
    seen = "a key for online runs" if facts.wandb_key else "no key"
    missing = needs.online and not facts.wandb_key
    return _of("wandb", seen, missing, "wandb = online needs one: wandb login, or WANDB_API_KEY; or wandb=offline")
