"""Learning-rate schedules. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from evidence.config_checks import require_above_zero, require_least, require_one_of, require_share

SHAPES = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class Schedule:
    """lr: the peak learning rate. warmup: steps in which it is reached, in equal increments. shape: constant (stays at
    lr), or linear or cosine decay until the end of the run. floor: what it decays to, as a share of lr."""

    lr: float = 1e-6
    warmup: int = 5
    shape: str = "cosine"
    floor: float = 0.0

    def __post_init__(self) -> None:
        require_above_zero(self, "lr")
        require_least(self, 0, "warmup")
        require_one_of(self, SHAPES, "shape")
        require_share(self, "floor")

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step `step`, from 0, of a run of `steps`."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, steps - self.warmup)
        decay = {"constant": 1.0, "linear": 1 - progress, "cosine": 0.5 * (1 + math.cos(math.pi * progress))}
        return self.lr * (self.floor + (1 - self.floor) * decay[self.shape])
