"""The section `cluster` of a config: processes, their GPUs and memory. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evidence.config_checks import require, require_above_zero, require_least, require_one_of
from evidence.errors import BadInput

MODEL_RUNNERS = ("v1", "v2")


@dataclass(frozen=True)
class ClusterConfig:
    """Processes and their memory.

    rollout_engines: number of vLLM engines that draw completions.
    object_store_gib: Ray's shared memory, which must hold the frames and two weight versions.
    frames_gib: budget for decoded frames; requests that do not fit wait.
    gpus_per_engine, gpus_per_rank: 0 runs them on the CPU. A rank takes a whole GPU; a fraction lets engines share one.
    gpu_memory_utilization: share of the memory of each of its GPUs that an engine takes, KV cache included; the shares
    of engines on the same GPU must sum to less than 1.
    tensor_parallel: number of GPUs over which an engine's model is split.
    colocated: the learner's only rank and all engines share one GPU, side by side. The rank gets what the engines
        leave, of its memory and of Ray's count.
    model_runner: vLLM's, of engines on GPUs. v1 is the one that the CPU's engines have, and so the one that was tested;
        v2, vLLM's own choice on a GPU, is needed for sampling.top_k.
    kv_cache_gib: KV cache of each engine without GPUs.
    """

    object_store_gib: float = 2.0
    frames_gib: float = 1.0
    rollout_engines: int = 1
    kv_cache_gib: float = 1.0
    gpus_per_engine: float = 0.0
    gpu_memory_utilization: float = 0.85
    tensor_parallel: int = 1
    gpus_per_rank: float = 0.0
    colocated: bool = False
    model_runner: str = "v1"

    def __post_init__(self) -> None:
        require_least(self, 1, "rollout_engines")
        require_one_of(self, MODEL_RUNNERS, "model_runner")
        require_above_zero(self, "object_store_gib", "frames_gib", "kv_cache_gib")
        require_least(self, 0, "gpus_per_engine", "gpus_per_rank")
        require(self.gpus_per_rank in (0, 1), "gpus_per_rank", self.gpus_per_rank, "0 or 1: a rank uses one whole GPU")
        share, gpus = self.gpu_memory_utilization, self.gpus_per_engine
        require(gpus > 0 or self.model_runner == "v1", "model_runner", self.model_runner, "v1 for engines without GPUs")
        require(0 < share < 1, "gpu_memory_utilization", share, "above 0 and below 1")
        require(gpus < 1 or gpus == int(gpus), "gpus_per_engine", gpus, "a fraction of one GPU, or a whole number")
        require(
            self.tensor_parallel == 1 or 1 < self.tensor_parallel == self.gpus_per_engine,
            "tensor_parallel",
            self.tensor_parallel,
            f"1, or gpus_per_engine ({self.gpus_per_engine:g}): an engine is split over all its GPUs",
        )
        require(
            self.frames_gib < self.object_store_gib,
            "frames_gib",
            self.frames_gib,
            f"below object_store_gib ({self.object_store_gib})",
        )

    def require_shares(self, shares: Sequence[float], ranks: int, reference: str) -> None:
        """Require that the engines that may come to share a GPU ask for no more than all of its memory, and with
        `colocated` for less, beside one rank. `shares`: of each engine, policy and referees. `reference`: its kind."""
        gpus, engines = self.gpus_per_engine, len(shares)
        if self.colocated:
            why = "with cluster.colocated, which is one GPU for all"
            require(ranks == 1, "learner.ranks", ranks, f"1 {why}")
            require(self.gpus_per_rank == 1, "cluster.gpus_per_rank", self.gpus_per_rank, f"1 {why}")
            require(reference != "frozen", "learner.reference.kind", reference, f"none or lora_off {why}")
            all_of_them = f"of {engines} engines {why}, and the learner needs a part of it"
            least = f"above 0 and below {1 / engines:.3g}, {all_of_them}"
            require(0 < gpus < 1 / engines, "cluster.gpus_per_engine", gpus, least)
            together, sharing = engines, f"the shares {all_of_them}; together they must be below 1"
        elif 0 < gpus < 1:
            together = min(engines, int(1 / gpus))
            sharing = f"{together} engines share a GPU with cluster.gpus_per_engine = {gpus:g}; together at most 1"
        else:
            return
        most = sum(sorted(shares)[-together:])
        if most > 1 or (self.colocated and most == 1):
            raise BadInput(
                f"cluster.gpu_memory_utilization = {self.gpu_memory_utilization:g}: {sharing}, not {most:.3g}"
            )
