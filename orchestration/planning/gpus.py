"""What GPUs can do, as published, and which share of it a run is expected to reach. Pure."""

from __future__ import annotations

from dataclasses import dataclass

GPUS_PER_NODE = 8


@dataclass(frozen=True)
class Gpu:
    """memory_gib: what a process can allocate at most. flops: dense bfloat16 FLOP/s. memory_bytes_s: of its memory.
    link_bytes_s: to the other GPUs of the node, in one direction. host_bytes_s: to host memory, in one direction."""

    memory_gib: float
    flops: float
    memory_bytes_s: float
    link_bytes_s: float
    host_bytes_s: float


# NVIDIA's data sheets: H100 SXM5 80 GB, H200 SXM 141 GB, A100 SXM4 80 GB, L40S 48 GB. FLOP/s without sparsity; NVLink's
# total is halved for one direction; the L40S has PCIe 4 x16 only. Memory is the sheet's, in GiB, less 1% (3% with the
# L40S, whose ECC takes some): what drivers report as available.
GPUS = {
    "h100-80": Gpu(79.1, 989e12, 3.35e12, 450e9, 64e9),
    "h200": Gpu(139.8, 989e12, 4.8e12, 450e9, 64e9),
    "a100-80": Gpu(79.1, 312e12, 2.04e12, 300e9, 32e9),
    "l40s": Gpu(44.4, 362e12, 0.864e12, 32e9, 32e9),
}


# By the names that their driver reports.
NAMES = {
    "NVIDIA H100 80GB HBM3": "h100-80",
    "NVIDIA H200": "h200",
    "NVIDIA A100-SXM4-80GB": "a100-80",
    "NVIDIA L40S": "l40s",
}


def gpu_named(name: str) -> Gpu | None:
    """The GPU that its driver calls so; None if it is not known here."""
    return GPUS[NAMES[name]] if name in NAMES else None


@dataclass(frozen=True)
class Efficiency:
    """Shares of the published rates that a run is expected to reach, and times that do not follow from shapes.

    None of them was measured on a GPU with this code: they are the rounded figures that others report for dense models
    of 3B to 32B, and they are frozen, so that plans can be compared with each other.
    """

    learner_flops: float = 0.40  # matrix products of forward and backward in packed rows
    prefill_flops: float = 0.45
    decode_flops: float = 0.30
    memory: float = 0.70
    link: float = 0.60
    host: float = 0.50
    decode_launch_s: float = 0.004  # one decode step's scheduling and sampling
    learner_step_s: float = 0.5  # layout, transfers and synchronisation of a step
    decode_video_s: float = 0.5  # one video's frames, by one decoder process
    host_memory_bytes_s: float = 100e9  # of a node, by an optimizer that runs there for all ranks
    publish_bytes_s: float = 2e9  # packing and hashing of weights, by one rank
    referee_group_s: float = 0.1  # drawing, cutting and encoding the images of a group's claims
    load_pause_s: float = 0.1  # pausing and resuming an engine


EFFICIENCY = Efficiency()
