"""Each fault of packages, memory, disk, limits and tools is named, with what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestration.commands.doctor import QUICKSTART
from orchestration.diagnosis.finding import Finding, Needs, Verdict
from orchestration.diagnosis.machine_facts import PACKAGES, MachineFacts
from orchestration.diagnosis.machine_findings import machine_findings

MACHINE = MachineFacts(
    python=(3, 11),
    packages=dict.fromkeys(PACKAGES, "1.0"),
    cuda_packages=(),
    cores=16,
    memory_gib=128.0,
    memory_free_gib=120.0,
    shared_gib=64.0,
    shared_free_gib=64.0,
    disk_free_gib=500.0,
    ray_disk_used=0.3,
    store="",
    folders=(),
    files=1_048_576,
    threads=100_000,
    decoders="",
    compiler="",
    locks=(),
    wandb_key=True,
    cluster=None,
)
ON_GPUS = replace(
    QUICKSTART, gpus=8, processes=8, memory_gib=100.0, store_gib=32.0, disk_gib=300.0, folder="/runs/a", online=True
)


def unwell(facts: MachineFacts, needs: Needs = ON_GPUS) -> list[Finding]:
    return [finding for finding in machine_findings(facts, needs) if finding.verdict is not Verdict.OK]


def test_a_machine_as_it_should_be() -> None:
    assert unwell(MACHINE) == []
    assert unwell(replace(MACHINE, files=None, threads=None)) == []


@pytest.mark.parametrize(
    ("fault", "subject", "remedy"),
    [
        ({"python": (3, 12)}, "python", "python3.11"),
        ({"packages": dict.fromkeys(PACKAGES, "1.0") | {"ray": None}}, "ray", "make install"),
        ({"cuda_packages": ("torchcodec",)}, "torchcodec", "pip uninstall torchcodec"),
        ({"cuda_packages": ("torchvision",)}, "torchvision", "python -m ser_files.install.torchvision_ops"),
        ({"decoders": "ImportError: libGL.so.1"}, "decoders", "install what the message names"),
        ({"shared_gib": 0.06, "shared_free_gib": 0.06}, "/dev/shm", "takes 32 GiB of it; mount more"),
        ({"store": "cluster.object_store_gib = 32: memory has 20 GiB free"}, "object store", "memory has 20 GiB free"),
        ({"disk_free_gib": 100.0}, "disk", "300.0 GiB"),
        ({"ray_disk_used": 0.97}, "disk of TMPDIR", "set TMPDIR"),
        ({"files": 1024}, "open files", "--ulimit nofile"),
        ({"threads": 1_500}, "processes", "about 1600"),
        ({"folders": ("TMPDIR = /x: too long",)}, "TMPDIR", "TMPDIR = /x: too long"),
        ({"compiler": "no gcc or clang"}, "compiler", "python3.11-dev"),
        ({"locks": ("/a/lock", "/b/lock")}, "build locks", "rm /a/lock /b/lock"),
        ({"wandb_key": False}, "wandb", "wandb login"),
    ],
)
def test_a_fault_makes_a_run_fail(fault: dict[str, object], subject: str, remedy: str) -> None:
    (finding,) = unwell(replace(MACHINE, **fault))
    assert (finding.verdict, finding.subject) == (Verdict.FAILS, subject)
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("fault", "subject"),
    [({"files": 20_000}, "open files"), ({"memory_free_gib": 60.0}, "memory"), ({"cluster": "h:6379"}, "cluster")],
)
def test_what_may_be_is_a_note(fault: dict[str, object], subject: str) -> None:
    (finding,) = unwell(replace(MACHINE, **fault))
    assert (finding.verdict, finding.subject) == (Verdict.NOTE, subject)


def test_what_the_quickstart_does_not_need_may_be_missing() -> None:
    small = replace(MACHINE, shared_free_gib=1.5, disk_free_gib=1.0, threads=1_100, compiler="no gcc", wandb_key=False)
    assert unwell(small, QUICKSTART) == []
