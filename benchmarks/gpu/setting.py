"""Where a part of the benchmark runs, and its clock and its memory counter."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

GIB = 2**30


@dataclass(frozen=True)
class Setting:
    """device: cuda or cpu. small: sizes with which a CPU runs the same code in seconds."""

    device: torch.device
    small: bool

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def dtype(self) -> torch.dtype:
        """That of training, which a CPU computes slowly."""
        return torch.bfloat16 if self.on_gpu else torch.float32

    def seconds(self, call: Callable[[], object], repeats: int = 3) -> float:
        """Median wall seconds of `call`, after a first one that compiles and allocates."""
        times = []
        for _ in range(1 + (1 if self.small else repeats)):
            start = time.perf_counter()
            call()
            self.synchronise()
            times.append(time.perf_counter() - start)
        return statistics.median(times[1:])

    def synchronise(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    def allocated_gib(self) -> float | None:
        """Memory of live tensors; None on a CPU, where torch does not count it."""
        return torch.cuda.memory_allocated() / GIB if self.on_gpu else None

    def peak_gib(self, call: Callable[[], object]) -> float | None:
        """Most memory of live tensors while `call` runs, beyond that before it; None on a CPU."""
        if not self.on_gpu:
            call()
            return None
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / GIB
