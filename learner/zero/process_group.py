"""The process group of the learner ranks."""

from __future__ import annotations

import os
import socket
from datetime import timedelta

import deepspeed
import torch

SHARED_MEMORY_OP = "deepspeed_shm_comm"


def join_group(rank: int, world: int, address: str, port: int, timeout_s: float) -> None:
    """Join the process group: nccl with a GPU, gloo without."""
    os.environ.update(RANK=str(rank), LOCAL_RANK="0", WORLD_SIZE=str(world), MASTER_ADDR=address, MASTER_PORT=str(port))
    # DeepSpeed would compile an optional shared-memory all-reduce for the CPU here, which takes a minute and a
    # compiler, under a file lock that outlives a killed process and then blocks every later run of the account.
    deepspeed.ops.__compatible_ops__[SHARED_MEMORY_OP] = False
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    deepspeed.init_distributed(backend, timeout=timedelta(seconds=timeout_s), auto_mpi_discovery=False, verbose=False)


def in_newest_attempt(attempt: int, device: torch.device) -> bool:
    """Whether `attempt` is the newest that any rank is in. A rank in it waits until all are; the others return False.
    Collective: every rank must call it until it returns True."""
    while True:
        bounds = torch.tensor([attempt, -attempt], device=device)
        torch.distributed.all_reduce(bounds, torch.distributed.ReduceOp.MAX)
        newest, oldest = int(bounds[0]), -int(bounds[1])
        if newest == oldest:
            return True
        if attempt < newest:
            return False


def free_address() -> tuple[str, int]:
    """(host, free port) at which the other ranks can reach this node."""
    import ray  # the rest of this module runs without Ray, in benchmarks/gpu

    host = ray.util.get_node_ip_address()
    with socket.socket() as probe:
        probe.bind((host, 0))
        return host, probe.getsockname()[1]
