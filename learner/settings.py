"""What the learner can be told. Pure: neither torch nor deepspeed."""

from __future__ import annotations

from dataclasses import dataclass, field

from evidence.config_checks import require, require_above_zero, require_default, require_least, require_one_of
from evidence.errors import BadInput
from learner.algorithm import AlgorithmConfig

DTYPES = ("float32", "bfloat16")
PACKING_MODES = ("none", "sequence", "prefix")
OFFLOADS = ("none", "cpu")
REFERENCES = ("none", "frozen", "lora_off")


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
        require_one_of(self, DTYPES, "precision")
        require_one_of(self, OFFLOADS, "offload_optimizer", "offload_parameters")
        require(all(0 <= beta < 1 for beta in self.betas), "betas", list(self.betas), "two, at least 0 and below 1")
        require_least(self, 0, "weight_decay")
        require_above_zero(self, "grad_norm")
        require(self.ema is None or 0 < self.ema < 1, "ema", self.ema, "above 0 and below 1, or null")


@dataclass(frozen=True)
class PackingConfig:
    """How sequences become forwards (docs/learner.md).

    mode: `prefix` runs what sequences share once and all of them behind it; `sequence` lays whole ones end to end;
    `none` gives each a row of its own. token_budget: tokens of one forward, padding counted.
    """

    mode: str = "prefix"
    token_budget: int = 16384

    def __post_init__(self) -> None:
        require_one_of(self, PACKING_MODES, "mode")
        require_least(self, 1, "token_budget")


@dataclass
class LoraSpec:
    """A low-rank adapter of `rank` on the language model, scaled by alpha / rank (arXiv 2106.09685), without dropout:
    the log-probs have to be those of the merged weights. targets: kinds of layer (q_proj, down_proj ...); none given
    are all linear ones."""

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_least(self, 1, "rank")
        require_above_zero(self, "alpha")

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
        require_above_zero(self, "vision_lr_factor")
        if not self.train_vision:
            require_default(self, "a frozen tower does not learn; set train_vision", "vision_lr_factor")
        require_least(self, 0, "vision_cache_mib")
        require_least(self, 1, "logit_chunk_mib")
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
        require_one_of(self, REFERENCES, "kind")
        require_least(self, 1, "ranks")
        if self.kind != "frozen":
            require_default(self, "only a frozen reference has ranks of its own", "ranks")


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
