"""Each fault of GPUs and their driver is named, with what to do; a machine as it should be has none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestration.commands.doctor import QUICKSTART
from orchestration.diagnosis.finding import Finding, Verdict
from orchestration.diagnosis.gpu_facts import Gpu, GpuFacts
from orchestration.diagnosis.gpu_findings import gpu_findings

H100 = Gpu("NVIDIA H100 80GB HBM3", 79.6, 0.5, (9, 0), "Completed")
NODE = GpuFacts((H100,) * 8, 8, "580.95.05", (13, 0), "", None, (13, 0), "2.29.7")
EIGHT = replace(QUICKSTART, gpus=8)


def worst(facts: GpuFacts, gpus: float) -> list[Finding]:
    """All rows that are not well."""
    return [f for f in gpu_findings(facts, replace(QUICKSTART, gpus=gpus)) if f.verdict is not Verdict.OK]


def test_a_node_as_it_should_be() -> None:
    assert worst(NODE, 8) == []
    assert {finding.subject for finding in gpu_findings(NODE, EIGHT)} == {
        *("CUDA", "GPUs", "driver", "GPU kind", "GPU memory", "NVLink fabric", "NCCL")
    }


def test_a_machine_without_gpus_and_with_the_cpu_build_is_well() -> None:
    (finding,) = gpu_findings(GpuFacts(), QUICKSTART)
    assert (finding.subject, finding.verdict) == ("CUDA", Verdict.OK)


def of_gpus(**changes: object) -> GpuFacts:
    """The node with one changed GPU."""
    return replace(NODE, gpus=(*NODE.gpus[:7], replace(H100, **changes)))


@pytest.mark.parametrize(
    ("facts", "subject", "remedy"),
    [
        (replace(NODE, torch_cuda=None), "CUDA", "make install gpu=true"),
        (replace(NODE, torch_cuda=()), "CUDA", "make clean, then make install gpu=true"),
        (GpuFacts(devices=8, torch_cuda=(13, 0), error="nvidia-smi is not installed"), "GPUs", "driver"),
        (replace(NODE, gpus=(), visible=""), "GPUs", "unset CUDA_VISIBLE_DEVICES"),
        (replace(NODE, gpus=()), "GPUs", "--gpus all"),
        (replace(NODE, gpus=NODE.gpus[:6]), "GPUs", "learner.ranks"),
        (replace(NODE, gpus=NODE.gpus[:6], visible="0,1,2,3,4,5"), "GPUs", "CUDA_VISIBLE_DEVICES"),
        (replace(NODE, cuda=(12, 8), driver="570.1"), "driver", "580 or later"),
        (of_gpus(capability=(7, 5)), "GPU kind", "bfloat16"),
        (of_gpus(used_gib=30.0), "GPU memory", "GPU 7: in use"),
        (of_gpus(fabric="In Progress"), "NVLink fabric", "nvidia-fabricmanager"),
        (replace(NODE, nccl=None), "NCCL", "make install gpu=true"),
    ],
)
def test_a_fault_makes_a_run_fail(facts: GpuFacts, subject: str, remedy: str) -> None:
    (finding,) = worst(facts, 8)
    assert (finding.verdict, finding.subject) == (Verdict.FAILS, subject)
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("facts", "gpus", "subject", "remark"),
    [
        (replace(NODE, torch_cuda=()), 0, "CUDA", "CPU alone"),
        (NODE, 7, "GPUs", "1 of 8 would stay idle"),
        (of_gpus(name="NVIDIA L40S"), 8, "GPU kind", "slowest"),
        (replace(NODE, cuda=()), 8, "driver", "does not say"),
    ],
)
def test_what_may_be_is_a_note(facts: GpuFacts, gpus: float, subject: str, remark: str) -> None:
    (finding,) = worst(facts, gpus)
    assert (finding.verdict, finding.subject) == (Verdict.NOTE, subject)
    assert remark in finding.remedy


def test_engines_may_share_the_last_gpu() -> None:
    assert worst(NODE, 7.5) == []


def test_the_gpu_build_without_a_gpu_fails() -> None:
    (finding,) = worst(GpuFacts(torch_cuda=(13, 0)), 0)
    assert (finding.verdict, finding.subject) == (Verdict.FAILS, "GPUs")
    assert "make clean, then make install" in finding.remedy
