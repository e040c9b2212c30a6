"""What a step of the learner amounted to: completion tokens, FLOPs and their share of what its GPUs can do. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evidence.types import Group
from orchestration.planning.achieved import step_flops
from orchestration.planning.gpus import gpu_named
from orchestration.planning.shapes import Shape
from orchestration.settings import TrainConfig


class StepRates:
    """The rates of the steps of one model. `device`: of a rank, as its driver calls it."""

    def __init__(self, config: TrainConfig, shape: Shape, device: str):
        self._learner, self._shape = config.learner, shape
        gpu = gpu_named(device)
        self._peak = gpu.flops if gpu else None

    def of_step(self, groups: Sequence[Group], seconds: float) -> dict[str, float]:
        """`tokens_per_s`: completion tokens, all ranks together. `tflops`: of one rank. `mfu`: their share of what its
        GPU can do, where that is known."""
        learner = self._learner
        tokens = sum(len(trajectory.token_ids) for group in groups for trajectory in group.trajectories)
        flops = step_flops(self._shape, groups, learner.packing, learner.policy) / learner.ranks / seconds
        utilisation = {} if self._peak is None else {"mfu": flops / self._peak}
        return {"tokens_per_s": tokens / seconds, "tflops": flops / 1e12, **utilisation}


def effective_share(metrics: Mapping[str, float]) -> dict[str, float]:
    """The effective sample size of the importance ratios as a share of the tokens: the square of their mean over the
    mean of their squares. A user's own loss may report no ratios."""
    whole = metrics.get("ratio_squared", 0.0) * metrics.get("weight", 0.0)
    return {"effective_share": metrics["ratio"] ** 2 / whole} if whole > 0 and "ratio" in metrics else {}
