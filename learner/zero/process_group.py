"""The process group of the learner ranks."""

from __future__ import annotations

import os
from datetime import timedelta

import deepspeed
import torch
from torch.distributed import TCPStore

SHARED_MEMORY_OP = "deepspeed_shm_comm"


def listen(host: str, world: int, timeout_s: float) -> TCPStore:
    """Rank 0's store, through which the ranks meet. It listens on a port (`.port`) that the system chose for it, so no
    other process can take that port between its choice and its use."""
    timeout = timedelta(seconds=timeout_s)
    return TCPStore(host, 0, world, is_master=True, timeout=timeout, wait_for_workers=False)


def join_group(store: TCPStore, rank: int, world: int, timeout_s: float) -> None:
    """Join the process group that meets in `store`: nccl with a GPU, gloo without."""
    os.environ.update(RANK=str(rank), LOCAL_RANK="0", WORLD_SIZE=str(world))
    # DeepSpeed would compile an optional shared-memory all-reduce for the CPU here, which takes a minute and a
    # compiler, under a file lock that outlives a killed process and then blocks every later run of the account.
    deepspeed.ops.__compatible_ops__[SHARED_MEMORY_OP] = False
    timeout = timedelta(seconds=timeout_s)
    gpu = torch.cuda.is_available()
    backend = "nccl" if gpu else "gloo"
    # Bound to its device, the group connects at once; DeepSpeed, which takes over a group that exists, does the same.
    device = torch.device("cuda", 0) if gpu and world > 1 else None
    torch.distributed.init_process_group(
        backend, store=store, rank=rank, world_size=world, timeout=timeout, device_id=device
    )
    deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False)


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
