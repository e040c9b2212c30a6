"""Whether this machine's GPUs, driver, CUDA and NCCL are those that a run needs. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from orchestration.diagnosis.finding import Finding, Needs, Verdict
from orchestration.diagnosis.gpu_facts import GpuFacts, Version

LEAST_CAPABILITY = (8, 0)  # Ampere: the first with bfloat16
MOST_USED_GIB = 1.0  # what drivers and displays take of a GPU that no process computes on
# The first drivers for each CUDA.
DRIVERS = {12: "525", 13: "580"}
COMPLETED = ("Completed", "N/A", "[N/A]", "[Not Supported]")


def gpu_findings(facts: GpuFacts, needs: Needs) -> Iterator[Finding]:
    """The rows about GPUs; only one where there are none and none is needed."""
    yield _build(facts, needs)
    if not facts.devices and not facts.gpus and not needs.gpus and not facts.torch_cuda:
        return
    yield _count(facts, needs)
    if not facts.gpus:
        return
    yield _driver(facts)
    yield _kinds(facts)
    yield _memory(facts)
    yield _fabric(facts)
    yield _nccl(facts)


def _build(facts: GpuFacts, needs: Needs) -> Finding:
    if facts.torch_cuda is None:
        return Finding(Verdict.FAILS, "CUDA", "torch is not installed", "make install, or make install gpu=true")
    if not facts.torch_cuda and needs.gpus:
        remedy = "make clean, then make install gpu=true"
        return Finding(Verdict.FAILS, "CUDA", "torch is a CPU build", remedy)
    if not facts.torch_cuda and facts.gpus:
        remedy = "a run uses the CPU alone; for the GPUs: make clean, then make install gpu=true"
        return Finding(Verdict.NOTE, "CUDA", "torch is a CPU build", remedy)
    seen = f"torch is built for CUDA {_text(facts.torch_cuda)}" if facts.torch_cuda else "torch is a CPU build"
    return Finding(Verdict.OK, "CUDA", seen)


def _count(facts: GpuFacts, needs: Needs) -> Finding:
    names = Counter(f"{gpu.name}, {gpu.memory_gib:.1f} GiB" for gpu in facts.gpus)
    seen = "; ".join(f"{count} x {name}" for name, count in names.items()) or "none"
    if facts.error:
        there = f"; {facts.devices} on the PCI bus" if facts.devices else ""
        remedy = "install NVIDIA's driver and restart; in a container, start it with --gpus all"
        return Finding(Verdict.FAILS, "GPUs", f"{facts.error}{there}", remedy)
    if not facts.gpus:
        hidden = facts.visible is not None
        remedy = "the CPU build runs without GPUs: make clean, then make install"
        if needs.gpus or hidden:
            remedy = "unset CUDA_VISIBLE_DEVICES" if hidden else "in a container, start it with --gpus all"
        hides = f" (CUDA_VISIBLE_DEVICES = {facts.visible!r})" if hidden else ""
        return Finding(Verdict.FAILS, "GPUs", seen + hides, remedy)
    if len(facts.gpus) < needs.gpus:
        wanted = f"{needs.gpus:g} are needed"
        remedy = "lower learner.ranks, cluster.rollout_engines or model.referee.replicas, or join a cluster"
        if facts.visible is not None:
            remedy = f"CUDA_VISIBLE_DEVICES = {facts.visible} hides the others, or {remedy}"
        return Finding(Verdict.FAILS, "GPUs", f"{seen}; {wanted}", remedy)
    if 0 < needs.gpus <= len(facts.gpus) - 1:
        idle = f"{len(facts.gpus) - needs.gpus:g} of {len(facts.gpus)} would stay idle; `ser plan` divides them all"
        return Finding(Verdict.NOTE, "GPUs", f"{seen}; {needs.gpus:g} are needed", idle)
    return Finding(Verdict.OK, "GPUs", seen)


def _driver(facts: GpuFacts) -> Finding:
    seen = f"{facts.driver or 'unknown'}, for CUDA up to {_text(facts.cuda) or 'unknown'}"
    if not facts.torch_cuda or not facts.cuda:
        verdict = Verdict.OK if facts.cuda else Verdict.NOTE
        return Finding(verdict, "driver", seen, "" if facts.cuda else "nvidia-smi does not say which CUDA it runs")
    wanted = facts.torch_cuda[0]
    if facts.cuda[0] < wanted:
        needed = f" ({DRIVERS[wanted]} or later)" if wanted in DRIVERS else ""
        return Finding(Verdict.FAILS, "driver", seen, f"update the driver to one for CUDA {wanted}{needed}")
    return Finding(Verdict.OK, "driver", seen)


def _kinds(facts: GpuFacts) -> Finding:
    oldest = min(facts.gpus, key=lambda gpu: gpu.capability)
    seen = f"compute capability {_text(oldest.capability)}"
    if oldest.capability < LEAST_CAPABILITY:
        remedy = f"{oldest.name} has no bfloat16; hide it by CUDA_VISIBLE_DEVICES"
        return Finding(Verdict.FAILS, "GPU kind", seen, remedy)
    if len({gpu.name for gpu in facts.gpus}) > 1:
        return Finding(Verdict.NOTE, "GPU kind", f"{seen}, different GPUs", "a step waits for the slowest rank")
    return Finding(Verdict.OK, "GPU kind", seen)


def _memory(facts: GpuFacts) -> Finding:
    busy = [n for n, gpu in enumerate(facts.gpus) if gpu.used_gib > MOST_USED_GIB]
    most = max(gpu.used_gib for gpu in facts.gpus)
    seen = f"at most {most:.1f} GiB of a GPU in use"
    if not busy:
        return Finding(Verdict.OK, "GPU memory", seen)
    numbers = ", ".join(map(str, busy))
    remedy = f"GPU {numbers}: in use by other processes, which nvidia-smi lists; end them, or hide these GPUs"
    return Finding(Verdict.FAILS, "GPU memory", seen, remedy)


def _fabric(facts: GpuFacts) -> Finding:
    states = {gpu.fabric for gpu in facts.gpus}
    waiting = sorted(states.difference(COMPLETED))
    if waiting:
        remedy = "CUDA does not start before it is completed; start nvidia-fabricmanager, of the driver's version"
        return Finding(Verdict.FAILS, "NVLink fabric", ", ".join(waiting), remedy)
    return Finding(Verdict.OK, "NVLink fabric", "completed" if "Completed" in states else "none to wait for")


def _nccl(facts: GpuFacts) -> Finding:
    if not facts.torch_cuda:
        return Finding(Verdict.OK, "NCCL", "a CPU build has none")
    if facts.nccl is None:
        return Finding(Verdict.FAILS, "NCCL", "not installed", "make install gpu=true")
    return Finding(Verdict.OK, "NCCL", facts.nccl)


def _text(version: Version) -> str:
    return ".".join(map(str, version))
