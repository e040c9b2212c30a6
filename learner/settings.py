"""What the learner can be told. Light to import: neither torch nor deepspeed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from evidence.errors import BadInput
from learner.algorithm import AlgorithmConfig

DTYPES = ("float32", "bfloat16")
PACKING_MODES = ("none", "sequence", "prefix")


def require_dtype(key: str, name: str) -> None:
    """Raises BadInput unless `name` is a dtype that weights are kept in."""
    if name not in DTYPES:
        raise BadInput(f"{key} = {name}: it has to be {' or '.join(DTYPES)}")


@dataclass
class ZeroConfig:
    """precision: float32 or bfloat16 (with float32 master weights). grad_norm: clip of the global gradient norm.
    ema: decay of a moving average of the weights, kept beside them and exported by `ser export --ema`; null keeps none.
    """

    precision: str = "float32"
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    grad_norm: float = 1.0
    ema: float | None = None

    def __post_init__(self) -> None:
        require_dtype("precision", self.precision)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise BadInput(f"betas = {list(self.betas)}: each has to be at least 0 and below 1")
        for key, least in (("weight_decay", 0.0), ("grad_norm", 1e-12)):
            if not least <= getattr(self, key) < math.inf:
                raise BadInput(f"{key} = {getattr(self, key)}: it has to be {least:g} or more, and finite")
        if self.ema is not None and not 0 < self.ema < 1:
            raise BadInput(f"ema = {self.ema}: it has to be above 0 and below 1, or null")


@dataclass(frozen=True)
class PackingConfig:
    """How sequences become forwards (docs/packing.md).

    mode: `prefix` runs what sequences share once and all of them behind it; `sequence` lays whole ones end to end;
    `none` gives each a row of its own. token_budget: tokens of one forward, padding counted.
    """

    mode: str = "prefix"
    token_budget: int = 16384

    def __post_init__(self) -> None:
        if self.mode not in PACKING_MODES:
            raise BadInput(f"mode = {self.mode}: it has to be {', '.join(PACKING_MODES[:-1])} or {PACKING_MODES[-1]}")
        if self.token_budget < 1:
            raise BadInput(f"token_budget = {self.token_budget}: it has to be 1 or more")


@dataclass
class LossConfig:
    """algorithm: what the loss is made by; None: supervised. temperature: that at which tokens were drawn."""

    algorithm: AlgorithmConfig | None = None
    temperature: float = 1.0


@dataclass
class RankConfig:
    """What a rank needs to load. model: folder in Hugging Face format. bucket_mib: most bytes gathered at once."""

    model: str
    banned_ids: tuple[int, ...]
    train_vision: bool = False
    zero: ZeroConfig = field(default_factory=ZeroConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    bucket_mib: int = 64
    threads: int = 1
    timeout_s: float = 600.0
