"""How far the log-probs of engine and learner may be apart at the start of a run. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from evidence.config_checks import require_above_zero


class ParityBounds(NamedTuple):
    """Of |difference| between the log-probs of engine and learner: its mean, and its 99.9th percentile."""

    mean: float
    p999: float


# Far above what rounding causes, and far below what a prompt that is seen otherwise does (docs/prompts.md).
PARITY = {"float32": ParityBounds(1e-4, 1e-3), "bfloat16": ParityBounds(0.05, 1.0)}


@dataclass(frozen=True)
class ParityConfig:
    """How far the log-probs of engine and learner may be apart at the start of a run.

    mean: of |difference|; null is 1e-4 with learner.zero.precision = float32, .05 with bfloat16. p999: its 99.9th
    percentile; null is 1e-3 with float32, 1 with bfloat16."""

    mean: float | None = None
    p999: float | None = None

    def __post_init__(self) -> None:
        for name in ("mean", "p999"):
            if getattr(self, name) is not None:
                require_above_zero(self, name)

    def bounds(self, precision: str) -> ParityBounds:
        default = PARITY[precision]
        return ParityBounds(
            default.mean if self.mean is None else self.mean, default.p999 if self.p999 is None else self.p999
        )
