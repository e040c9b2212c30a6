"""The GPUs of this machine as NVIDIA's driver reports them, and the CUDA that the installed torch was built for.

Reading them opens no GPU and imports no torch."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

PCI_DEVICES = Path("/sys/bus/pci/devices")
NVIDIA, DISPLAYS = "0x10de", ("0x0300", "0x0302")  # PCI vendor; classes of GPUs with and without a display
FIELDS = ("index", "uuid", "name", "memory.total", "memory.used", "compute_cap", "fabric.state")
MIB_PER_GIB = 1024
Version = tuple[int, ...]


@dataclass(frozen=True)
class Gpu:
    """fabric: the state of its NVLink fabric, which a node with NVSwitches must have completed before CUDA starts."""

    name: str
    memory_gib: float
    used_gib: float
    capability: Version
    fabric: str


@dataclass(frozen=True)
class GpuFacts:
    """gpus: that processes started here can use. devices: GPUs on the PCI bus. driver, cuda: the driver's version and
    the newest CUDA that it runs. error: why the driver does not answer, if so. visible: CUDA_VISIBLE_DEVICES.
    torch_cuda: of the installed torch, () for a CPU build, None without torch. nccl: version of its NCCL, if any."""

    gpus: tuple[Gpu, ...] = ()
    devices: int = 0
    driver: str = ""
    cuda: Version = ()
    error: str = ""
    visible: str | None = None
    torch_cuda: Version | None = ()
    nccl: str | None = None


def read_gpus() -> GpuFacts:
    """All of it. A machine without GPUs has no driver, and that is no error."""
    visible, devices = os.environ.get("CUDA_VISIBLE_DEVICES"), sum(1 for _ in _pci_gpus())
    facts = GpuFacts(visible=visible, devices=devices, torch_cuda=_torch_cuda(), nccl=_nccl())
    try:
        rows = _nvidia_smi(f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits").splitlines()
        header = _nvidia_smi()
    except (OSError, subprocess.SubprocessError) as error:
        return replace(facts, error=_reason(error))
    fields = [[field.strip() for field in row.split(",")] for row in rows if row.strip()]
    try:
        return replace(
            facts,
            gpus=tuple(_gpu(row) for row in fields if _is_visible(visible, row[0], row[1])),
            driver=_matched(r"Driver Version\s*:\s*([\d.]+)", header),
            cuda=_version(_matched(r"CUDA(?: UMD)? Version\s*:\s*([\d.]+)", header)),
        )
    except (ValueError, IndexError):
        return replace(facts, error=f"nvidia-smi reports {rows[0]!r}")


def _nvidia_smi(*arguments: str) -> str:
    done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise subprocess.SubprocessError((done.stdout + done.stderr).strip() or f"exit code {done.returncode}")
    return done.stdout


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "nvidia-smi is not installed"
    return f"nvidia-smi: {str(error).splitlines()[0]}"


def _gpu(row: list[str]) -> Gpu:
    _, _, name, total, used, capability, fabric = row
    return Gpu(name, int(total) / MIB_PER_GIB, int(used) / MIB_PER_GIB, _version(capability), fabric)


def _is_visible(visible: str | None, index: str, uuid: str) -> bool:
    """Whether CUDA_VISIBLE_DEVICES leaves a GPU, given by its index or its (shortened) UUID."""
    if visible is None:
        return True
    return any(entry == index or (entry.startswith("GPU-") and uuid.startswith(entry)) for entry in visible.split(","))


def _pci_gpus() -> Iterator[Path]:
    for device in PCI_DEVICES.glob("*"):
        try:
            vendor, kind = ((device / file).read_text(encoding="utf-8").strip() for file in ("vendor", "class"))
        except OSError:
            continue
        if vendor == NVIDIA and kind.startswith(DISPLAYS):
            yield device


def _torch_cuda() -> Version | None:
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    return _version(_matched(r"^cuda\b[^=]*= *'([\d.]+)'", text))


def _nccl() -> str | None:
    names = (str(package.metadata["Name"]) for package in metadata.distributions())
    return next((metadata.version(name) for name in names if name.startswith("nvidia-nccl-")), None)


def _matched(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    return match[1] if match else ""


def _version(text: str) -> Version:
    return tuple(int(part) for part in text.split(".")) if text else ()
