"""Settings of the learner. Light to import: neither torch nor deepspeed. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from evidence.config_checks import require, require_above_zero, require_default, require_least, require_one_of
from evidence.errors import BadInput
from evidence.limits import Limits
from learner.algorithm import AlgorithmConfig

DTYPES = ("float32", "bfloat16")
PACKING_MODES = ("none", "sequence", "prefix")
OFFLOADS = ("none", "cpu")
# Elements of a rank's part that are updated at once: AdamW's temporaries, four of them in float32, take 1.5 GiB. A
# single larger tensor is not divided.
SUB_GROUP = 100_000_000
REFERENCES = ("none", "frozen", "lora_off")


@dataclass
class ZeroConfig:
    """Optimizer, precision and memory of the ZeRO-3 engine.

    precision: float32 or bfloat16 (with float32 master weights). grad_norm: limit to which the global gradient norm is
        clipped. weight_decay, betas: of AdamW.
    offload_optimizer: none, or cpu: master weights, moments and the optimizer's step are in host memory.
    offload_parameters: none, or cpu: the rank's shard of the weights is in host memory while it is not in use.
    ema: decay of a moving average of the weights, exported by `ser export --ema`; null keeps no average.
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
        require(
            all(0 <= beta < 1 for beta in self.betas), "betas", list(self.betas), "two numbers, at least 0 and below 1"
        )
        require_least(self, 0, "weight_decay")
        require_above_zero(self, "grad_norm")
        require(self.ema is None or 0 < self.ema < 1, "ema", self.ema, "above 0 and below 1, or null")


@dataclass(frozen=True)
class PackingConfig:
    """How sequences are packed into forwards (docs/learner.md).

    mode: `prefix` runs the prefix that sequences share once, followed by all of them; `sequence` lays whole sequences
        end to end; `none` gives each sequence its own row.
    token_budget: most tokens in one forward, padding included.
    """

    mode: str = "prefix"
    token_budget: int = 16384

    def __post_init__(self) -> None:
        require_one_of(self, PACKING_MODES, "mode")
        require_least(self, 1, "token_budget")


@dataclass
class LoraSpec:
    """A low-rank adapter on the language model (arXiv 2106.09685). It has no dropout, since its log-probs must equal
    those of the merged weights. rank: of its matrices. alpha: it is scaled by alpha / rank. targets: kinds of layer
    (q_proj, down_proj ...); empty means all linear layers."""

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
    """Which parts of the model are trained, and memory settings.

    train_vision: train the vision tower too. A frozen tower is replicated on every rank.
    vision_cache_mib: size of a frozen tower's cache of features, in MiB.
    vision_lr_factor: learning rate of a trained tower, relative to the language model's.
    gradient_checkpointing: layers keep only their inputs and are run again in the backward pass.
    logit_chunk_mib: size of one chunk of the logits, in MiB.
    lora: train an adapter instead of the language model.
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
    """The reference policy. kind: none; frozen, a copy of the initial weights on ranks of its own; or lora_off, the
    policy without its adapter, which costs no memory. ranks: of `frozen`."""

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
    """algorithm: selects the loss; None is supervised cross-entropy. temperature: at which the tokens were drawn."""

    algorithm: AlgorithmConfig | None = None
    temperature: float = 1.0


@dataclass
class RankConfig:
    """Settings of one learner rank. model: folder in Hugging Face format. bucket_mib: most MiB gathered at once, unless
    one layer is larger. trained: false for ranks that only compute log-probs; they have no optimizer. threads: on the
    CPU, also of an offloaded optimizer. gpu_share: of the memory of a rank's GPU, where it has one, that it may use."""

    model: str
    banned_ids: tuple[int, ...]
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    zero: ZeroConfig = field(default_factory=ZeroConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    trained: bool = True
    bucket_mib: int = 64
    threads: int = 1
    gpu_share: float = 1.0
    limits: Limits = field(default_factory=Limits)
