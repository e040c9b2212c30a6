"""`ser doctor`: what this machine has, what a run would miss on it, and what to do about it."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

from evidence.errors import RunFailed
from orchestration.diagnosis.finding import Finding, Needs, Verdict
from orchestration.diagnosis.gpu_facts import read_gpus
from orchestration.diagnosis.gpu_findings import gpu_findings
from orchestration.diagnosis.machine_facts import read_machine
from orchestration.diagnosis.machine_findings import machine_findings
from orchestration.leftovers import orphaned_processes, unmapped_segments
from orchestration.machine import GIB, SHARED_MEMORY
from orchestration.planning.memory import FLOAT32, node_memory, trained_parameters
from orchestration.planning.shapes import read_shape
from orchestration.settings import TrainConfig
from orchestration.supervision.local_session import left_behind

MASTER_AND_MOMENTS = 3 * FLOAT32  # bytes of a checkpoint for each trained parameter
EXPORT = {"float32": 4, "bfloat16": 2}
# What the quickstart needs.
QUICKSTART = Needs(gpus=0, processes=4, memory_gib=7.0, store_gib=1.0, disk_gib=0.1, folder=".", online=False)
WIDTHS = 7, 16  # of the columns of verdicts and subjects


def main(config: TrainConfig | None) -> None:
    """Print the table for `config`; None: for the quickstart's needs, with all GPUs where the GPU build is installed.
    Raises RunFailed if a run would fail."""
    findings = diagnose(config)
    print("\n".join([*map(row, findings), *leftovers(Path(SHARED_MEMORY))]))
    fails = [finding.subject for finding in findings if finding.verdict is Verdict.FAILS]
    if fails:
        raise RunFailed(f"a run would fail on this machine: {', '.join(fails)} (the table says what to do)")


def diagnose(config: TrainConfig | None) -> list[Finding]:
    """All rows of the table."""
    gpus = read_gpus()
    needs = QUICKSTART if config is None else needs_of(config)
    if config is None and gpus.torch_cuda:
        needs = replace(needs, gpus=max(1, len(gpus.gpus)))
    if "RAY_ADDRESS" in os.environ:  # the cluster's nodes have the rest
        needs = replace(needs, gpus=min(needs.gpus, len(gpus.gpus)), store_gib=0.0)
    machine = read_machine(needs.store_gib, needs.folder)
    return [*machine_findings(machine, needs), *gpu_findings(gpus, needs)]


def needs_of(config: TrainConfig) -> Needs:
    """What `ser train` with this config asks of one machine. Raises BadInput for a policy whose shape is not known."""
    shape, learner, saved = read_shape("model.policy", config.model.policy), config.learner, config.checkpoint
    average = FLOAT32 if learner.zero.ema is not None else 0
    checkpoint = (MASTER_AND_MOMENTS + average) * trained_parameters(shape, learner.policy)
    # A checkpoint is complete before the oldest is removed.
    written = EXPORT[learner.export_dtype] * shape.parameters + (saved.keep + 1) * checkpoint * saved.wanted
    reference = learner.reference.ranks if learner.reference.kind == "frozen" else 0
    processes = config.engines + learner.ranks + reference
    store = config.cluster.object_store_gib
    # Planned for GPUs only.
    memory = sum(node_memory(config, shape, processes, math.ceil(config.gpus)).values()) / GIB if config.gpus else store
    return Needs(
        gpus=config.gpus,
        processes=processes,
        memory_gib=memory,
        store_gib=store,
        disk_gib=written / GIB,
        folder=config.run_dir,
        online=config.wandb == "online",
    )


def row(finding: Finding) -> str:
    """A row of the table; the remedy has a line of its own."""
    verdict, subject = WIDTHS
    line = f"{finding.verdict:{verdict}}{finding.subject:{subject}}{finding.seen}"
    if finding.verdict is Verdict.OK or not finding.remedy:
        return line
    return f"{line}\n{'':{verdict + subject}}{finding.remedy}"


def leftovers(shared_memory: Path) -> list[str]:
    """Rows on what runs of this account have left and what costs no more than memory, with its remedy."""

    lines = [
        f"what the killed run of process {session.driver.pid} left in {session.folder}; the next command that starts a "
        "Ray ends and removes it"
        for session in left_behind()
    ]
    if segments := unmapped_segments(shared_memory):
        size = sum(os.path.getsize(path) for path in segments if os.path.exists(path))
        lines.append(
            f"{size / GIB:.2f} GiB of shared memory that no process of this account uses; if no other container "
            f"shares it: rm {' '.join(segments)}"
        )
    if orphans := orphaned_processes():
        pids = " ".join(orphan.split()[0] for orphan in orphans)
        lines.append(f"Ray processes whose Ray node has ended ({', '.join(orphans)}); kill {pids}")
    return [row(Finding(Verdict.NOTE, "leftovers", line)) for line in lines]
