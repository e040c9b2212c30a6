"""How the learning rate goes over a run. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from evidence.errors import BadInput

SHAPES = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class Schedule:
    """lr: the learning rate once `warmup` steps have raised it there by equal amounts. shape: constant, linear or
    cosine, how it goes from there to `floor` times lr at the run's end (constant stays at lr)."""

    lr: float = 1e-6
    warmup: int = 5
    shape: str = "cosine"
    floor: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf:
            raise BadInput(f"lr = {self.lr}: it has to be above 0, and finite")
        if self.warmup < 0:
            raise BadInput(f"warmup = {self.warmup}: it has to be 0 or more")
        if self.shape not in SHAPES:
            raise BadInput(f"shape = {self.shape}: it has to be one of {', '.join(SHAPES)}")
        if not 0 <= self.floor <= 1:
            raise BadInput(f"floor = {self.floor}: a share of lr, it has to be 0 to 1")

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step `step` (0 is the first) of a run of `steps`."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, steps - self.warmup)
        left = {"constant": 1.0, "linear": 1 - progress, "cosine": 0.5 * (1 + math.cos(math.pi * progress))}[self.shape]
        return self.lr * (self.floor + (1 - self.floor) * left)
