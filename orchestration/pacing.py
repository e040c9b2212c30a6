"""How training and generation are coupled: the settings that determine staleness, and its bound. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from evidence.config_checks import require_least, require_share


@dataclass(frozen=True)
class Pacing:
    """How training and generation are coupled (docs/staleness.md).

    groups_per_step: P, prompt groups in one optimizer step.
    staleness: S, how many steps' worth of groups may be in progress beside those in training; 0 is synchronous.
    publish_every: K, steps between two weight publications.
    lag: L, how many publications behind an engine may be when it starts a group.
    window_fraction: f, the share of the slots that the window spans.
    full_every: every so many publications send all weights, the others only what changed (docs/learner.md).
    """

    groups_per_step: int = 8
    staleness: int = 1
    publish_every: int = 1
    lag: int = 0
    window_fraction: float = 0.3
    full_every: int = 1

    def __post_init__(self) -> None:
        require_least(self, 1, "groups_per_step", "publish_every", "full_every")
        require_least(self, 0, "staleness", "lag")
        require_share(self, "window_fraction")

    @property
    def slots(self) -> int:
        """B, the largest number of groups that are admitted and not yet trained."""
        return (self.staleness + 1) * self.groups_per_step

    @property
    def window(self) -> int:
        """W, the number of groups in the window, its anchor included. With W = 1 no group passes an unfinished one."""
        return 1 if self.staleness == 0 else max(1, math.floor(self.window_fraction * self.slots))

    @property
    def worst_age(self) -> int:
        """The largest age that a trained group can have, (B + W - 2) // P + (L + 1) K - 1. The bound is tight."""
        overtaken = (self.slots + self.window - 2) // self.groups_per_step
        return overtaken + (self.lag + 1) * self.publish_every - 1
