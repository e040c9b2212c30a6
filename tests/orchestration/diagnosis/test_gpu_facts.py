"""GPUs are read from nvidia-smi, the PCI bus and the environment, and from nothing that opens a GPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from orchestration.diagnosis import gpu_facts
from orchestration.diagnosis.gpu_facts import read_gpus

# As driver 580 prints them.
HEADER = """
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 580.95.05              Driver Version: 580.95.05      CUDA Version: 13.0     |
+-----------------------------------------+------------------------+----------------------+
"""
ROWS = """0, GPU-aaaa-1, NVIDIA H100 80GB HBM3, 81559, 4, 9.0, Completed
1, GPU-bbbb-2, NVIDIA H100 80GB HBM3, 81559, 2048, 9.0, In Progress
"""


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in place of nvidia-smi that answers like a node with two GPUs."""
    program = tmp_path / "nvidia-smi"
    program.write_text(
        f'#!/bin/sh\ncase "$1" in --query-gpu=*) printf "%s" "{ROWS}";; *) printf "%s" "{HEADER}";; esac'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return program


def test_gpus_and_driver_are_read(nvidia_smi: Path) -> None:
    facts = read_gpus()
    assert (facts.driver, facts.cuda, facts.error) == ("580.95.05", (13, 0), "")
    first, second = facts.gpus
    assert (first.name, first.capability, first.fabric) == ("NVIDIA H100 80GB HBM3", (9, 0), "Completed")
    assert first.memory_gib == pytest.approx(79.65, abs=0.01)
    assert (second.used_gib, second.fabric) == (2.0, "In Progress")


@pytest.mark.parametrize(("visible", "left"), [("1", [2.0]), ("GPU-bbbb", [2.0]), ("", []), ("0,1", [4 / 1024, 2.0])])
def test_only_visible_gpus_count(
    nvidia_smi: Path, monkeypatch: pytest.MonkeyPatch, visible: str, left: list[float]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.used_gib for gpu in read_gpus().gpus] == left


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("echo NVIDIA-SMI has failed because it could not talk to the driver; exit 9", "could not talk to the driver"),
        ("echo Field fabric.state is not valid; exit 2", "fabric.state"),
        ("echo something else", "reports 'something else'"),
    ],
)
def test_a_driver_that_does_not_answer_is_an_error(nvidia_smi: Path, script: str, error: str) -> None:
    nvidia_smi.write_text(f"#!/bin/sh\n{script}\n")
    assert error in read_gpus().error


def test_gpus_without_a_driver_are_seen_on_the_bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, vendor, kind in (("0", "0x10de", "0x030200"), ("1", "0x10de", "0x068000"), ("2", "0x8086", "0x030000")):
        (tmp_path / "pci" / name).mkdir(parents=True)
        (tmp_path / "pci" / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / "pci" / name / "class").write_text(f"{kind}\n")
    monkeypatch.setattr(gpu_facts, "PCI_DEVICES", tmp_path / "pci")
    monkeypatch.setenv("PATH", str(tmp_path))
    facts = read_gpus()
    assert (facts.devices, facts.error, facts.gpus) == (1, "nvidia-smi is not installed", ())


@pytest.mark.parametrize(("line", "cuda"), [("cuda: str | None = '13.0'", (13, 0)), ("cuda: str | None = None", ())])
def test_the_cuda_of_torch_is_read_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, cuda: tuple[int, ...]
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("raise ImportError")
    (tmp_path / "torch/version.py").write_text(f"__version__ = '2.13.0'\n{line}\n")
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert read_gpus().torch_cuda == cuda
