"""What the learner can be told. Light to import: neither torch nor deepspeed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from evidence.errors import BadInput
from learner.algorithm import AlgorithmConfig

DTYPES = ("float32", "bfloat16")
PACKING_MODES = ("none", "sequence", "prefix")
OFFLOADS = ("none", "cpu")
REFERENCES = ("none", "frozen", "lora_off")


def require_dtype(key: str, name: str) -> None:
    """Raises BadInput unless `name` is a dtype that weights are kept in."""
    if name not in DTYPES:
        raise BadInput(f"{key} = {name}: it has to be {' or '.join(DTYPES)}")


@dataclass
class ZeroConfig:
    """precision: float32 or bfloat16 (with float32 master weights). grad_norm: clip of the global gradient norm.
    offload_optimizer, offload_parameters: none, or cpu to keep what is not in use in the host's memory: master weights,
    moments and the optimizer's step; the rank's part of the weights.
    ema: decay of a moving average of the weights, kept beside them and exported by `ser export --ema`; null keeps none.
    """

    precision: str = "float32"
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    grad_norm: float = 1.0
    offload_optimizer: str = "none"
    offload_parameters: str = "none"
    ema: float | None = None

    def __post_init__(self) -> None:
        require_dtype("precision", self.precision)
        for key in ("offload_optimizer", "offload_parameters"):
            if getattr(self, key) not in OFFLOADS:
                raise BadInput(f"{key} = {getattr(self, key)}: it has to be {' or '.join(OFFLOADS)}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise BadInput(f"betas = {list(self.betas)}: each has to be at least 0 and below 1")
        for key, least in (("weight_decay", 0.0), ("grad_norm", 1e-12)):
            if not least <= getattr(self, key) < math.inf:
                raise BadInput(f"{key} = {getattr(self, key)}: it has to be {least:g} or more, and finite")
        if self.ema is not None and not 0 < self.ema < 1:
            raise BadInput(f"ema = {self.ema}: it has to be above 0 and below 1, or null")


@dataclass(frozen=True)
class PackingConfig:
    """How sequences become forwards (docs/learner.md).

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
class LoraSpec:
    """A low-rank adapter of `rank` on the language model, scaled by alpha / rank (arXiv 2106.09685), without dropout:
    the log-probs have to be those of the merged weights. targets: kinds of layer (q_proj, down_proj ...); none given
    are all linear ones."""

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise BadInput(f"rank = {self.rank}: it has to be 1 or more")
        if not 0 < self.alpha < math.inf:
            raise BadInput(f"alpha = {self.alpha}: it has to be above 0, and finite")

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


@dataclass
class PolicyConfig:
    """What of the model is trained, and in which memory.

    train_vision: whether the vision tower is; a frozen one is replicated, and keeps what it made of up to
    `vision_cache_mib` of clips.
    vision_lr_factor: a trained tower's learning rate, over the language model's.
    gradient_checkpointing: layers keep their inputs only and are run again in the backward.
    logit_chunk_mib: most that a chunk of the logits takes.
    lora: trains an adapter instead of the language model.
    """

    train_vision: bool = False
    vision_lr_factor: float = 1.0
    vision_cache_mib: int = 1024
    gradient_checkpointing: bool = False
    logit_chunk_mib: int = 64
    lora: LoraSpec | None = None

    def __post_init__(self) -> None:
        if not 0 < self.vision_lr_factor < math.inf:
            raise BadInput(f"vision_lr_factor = {self.vision_lr_factor}: it has to be above 0, and finite")
        for key, least in (("vision_cache_mib", 0), ("logit_chunk_mib", 1)):
            if getattr(self, key) < least:
                raise BadInput(f"{key} = {getattr(self, key)}: it has to be {least} or more")
        if self.lora and self.train_vision:
            raise BadInput("lora: an adapter is trained alone; set train_vision to false")


@dataclass
class ReferenceConfig:
    """What the policy is held against: none; frozen, a copy of the first weights on `ranks` ranks of its own; or
    lora_off, the policy without its adapter, which costs no memory."""

    SHORT = "kind"

    kind: str = "none"
    ranks: int = 1

    def __post_init__(self) -> None:
        if self.kind not in REFERENCES:
            raise BadInput(f"kind = {self.kind}: it has to be one of {', '.join(REFERENCES)}")
        if self.ranks < 1:
            raise BadInput(f"ranks = {self.ranks}: it has to be 1 or more")


@dataclass
class LossConfig:
    """algorithm: what the loss is made by; None: supervised. temperature: that at which tokens were drawn."""

    algorithm: AlgorithmConfig | None = None
    temperature: float = 1.0


@dataclass
class RankConfig:
    """What a rank needs to load. model: folder in Hugging Face format. bucket_mib: most bytes gathered at once.
    trained: false for ranks that only compute log-probs: they have no optimizer."""

    model: str
    banned_ids: tuple[int, ...]
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    zero: ZeroConfig = field(default_factory=ZeroConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    trained: bool = True
    bucket_mib: int = 64
    threads: int = 1
    timeout_s: float = 600.0
