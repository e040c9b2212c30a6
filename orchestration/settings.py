"""The config schema of `ser train`. Sections whose code has its own schema are composed from there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from omegaconf import MISSING

from evidence.config_checks import MOST_SEED, require, require_least, require_one_of, require_share
from evidence.errors import BadInput
from evidence.limits import Limits
from evidence.sampling import SamplingContract
from learner.algorithm import AlgorithmConfig
from learner.checkpoints import CheckpointConfig, require_resume
from learner.schedule import Schedule
from learner.settings import DTYPES, PackingConfig, PolicyConfig, ReferenceConfig, ZeroConfig
from orchestration.cluster_settings import ClusterConfig
from orchestration.eval_settings import EvalConfig
from orchestration.pacing import Pacing
from orchestration.parity_bounds import ParityConfig
from referee.reward.graph import RewardGraph
from referee.reward.settings import RewardConfig
from referee.service.service import ServiceConfig
from referee.service.sources import RefereeSource
from referee.terms.shaping import overlong_span
from referee.trust.agreement import AgreementConfig
from referee.verification import VerificationConfig
from rollout.dataset.mix import DataFile, DataShare
from rollout.frames.config import FramesConfig
from rollout.template import PromptTemplate

LEAST_TEMPERATURE = 0.01
OTHER_SOFTMAX = "the engine's log-probs would differ from those of the learner's softmax"
MOST_TAG = 64  # characters of a tag that wandb takes
MOST_GROUP = 4096  # completions of one prompt, which are drawn and trained together
WandbMode = Literal["offline", "online", "disabled"]


@dataclass(frozen=True)
class DataConfig:
    """train: one dataset file, or several with their weights. heldout: one file, of which the first samples are used.
    A file is given by its path, or as a section with its format, filters and so on (docs/data.md).
    max_unscorable: the run is refused if more than this share of either's samples have a reference answer that no
    answer can satisfy."""

    train: list[DataShare] = MISSING
    heldout: DataFile = MISSING
    max_unscorable: float = 0.05

    def __post_init__(self) -> None:
        require_share(self, "max_unscorable")
        require(bool(self.train), "train", self.train, "at least one dataset file")


@dataclass(frozen=True)
class ModelConfig:
    """policy: a folder with weights, tokenizer and processor files. referee: one, or several whose verdicts are
    averaged; each is such a folder or a section (docs/referee.md)."""

    policy: str = MISSING
    referee: list[RefereeSource] = MISSING

    def __post_init__(self) -> None:
        require(bool(self.referee), "referee", self.referee, "at least one referee")


@dataclass(frozen=True)
class SamplingConfig:
    """How completions are sampled. group_size: completions of one prompt. temperature: of the softmax that they are
    drawn from. max_tokens: limit for one completion. max_model_len: limit for prompt and completion together, tokens.
    max_num_seqs: completions that an engine decodes at once. max_num_batched_tokens: tokens that an
    engine on a GPU computes in one step, of prompts and completions together.

    top_k, top_p: truncation. A top_k of 0 switches it off, and a top_p needs a top_k. Both need engines on GPUs with
        cluster.model_runner=v2, since only they return the tokens that were left to draw from, over which the learner
        then renormalises.
    min_p, presence_penalty, frequency_penalty, repetition_penalty: must keep their defaults, since the learner's
        softmax knows nothing of them, so that the engine's log-probs would give a wrong ratio.
    """

    group_size: int = 8
    temperature: float = 1.0
    max_tokens: int = 256
    max_model_len: int = 2048
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 8192
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        require(
            2 <= self.group_size <= MOST_GROUP,
            "group_size",
            self.group_size,
            f"from 2 to {MOST_GROUP}: advantages compare completions within a group",
        )
        require(
            # A bias of -100 excludes banned tokens; the engine divides it by the temperature. vLLM raises temperatures
            # below its _MAX_TEMP to it, with no more than a warning.
            LEAST_TEMPERATURE <= self.temperature <= 2,
            "temperature",
            self.temperature,
            f"{LEAST_TEMPERATURE} to 2: vLLM silently raises a lower one, a higher one lets banned tokens through",
        )
        require_least(self, 1, "max_tokens", "max_num_seqs")
        require(
            self.max_num_batched_tokens >= self.max_num_seqs,
            "max_num_batched_tokens",
            self.max_num_batched_tokens,
            f"at least max_num_seqs ({self.max_num_seqs}): a step draws a token of each",
        )
        require(0 < self.top_p <= 1, "top_p", self.top_p, "above 0, and at most 1")
        require_least(self, 0, "top_k")
        require(
            self.top_p == 1 or self.top_k > 0,
            "top_p",
            self.top_p,
            f"1.0 in training without a top_k, which bounds the sets that the engine returns: {OTHER_SOFTMAX}",
        )
        for key in ("min_p", "presence_penalty", "frequency_penalty", "repetition_penalty"):
            value, neutral = getattr(self, key), SamplingConfig.__dataclass_fields__[key].default
            require(value == neutral, key, value, f"{neutral} in training: {OTHER_SOFTMAX}")


@dataclass(frozen=True)
class LearnerConfig:
    """How the policy is trained.

    ranks: number of ZeRO-3 processes. threads: of each on the CPU; an offloaded optimizer is as fast as they are.
    schedule: the learning rate; by default a cosine to 0 after the warm-up (as in Open-o3-Video).
    parity: the allowed difference of log-probs between engine and learner at start.
    export_dtype: dtype of the weights written at the end.
    max_skipped: the run stops after this many consecutive steps whose loss or gradient is not finite.
    """

    ranks: int = 2
    threads: int = 1
    schedule: Schedule = field(default_factory=Schedule)
    parity: ParityConfig = field(default_factory=ParityConfig)
    export_dtype: str = "bfloat16"
    max_skipped: int = 3
    packing: PackingConfig = field(default_factory=PackingConfig)
    zero: ZeroConfig = field(default_factory=ZeroConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)

    def __post_init__(self) -> None:
        require_least(self, 1, "ranks", "threads", "max_skipped")
        require_one_of(self, DTYPES, "export_dtype")
        require(
            self.reference.kind != "lora_off" or self.policy.lora is not None,
            "reference.kind",
            self.reference.kind,
            "none or frozen: no learner.policy.lora is set that could be switched off",
        )

    @property
    def uses_reference(self) -> bool:
        return self.reference.kind != "none"


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    steps: of the optimizer. seed: of the order of prompts, of sampling and of everything else that is drawn. run_dir:
    the folder of everything that the run writes.
    shuffle_rewards: a control that should learn nothing: each group's rewards are permuted at random among its
    completions.
    limits: how long each kind of work may take.
    resume: no refuses a run_dir that holds a run; auto goes on from its newest checkpoint, or starts where there is
        none; a number goes on from the checkpoint of that step (docs/checkpoints.md).
    wandb: offline (no account needed), online or disabled. wandb_group, wandb_tags: of the run in wandb.
    dry_run: take the first step with tiny random models in place of the real ones, and keep nothing.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    pacing: Pacing = field(default_factory=lambda: Pacing(groups_per_step=8))
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    limits: Limits = field(default_factory=Limits)
    frames: FramesConfig = field(default_factory=FramesConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    contract: SamplingContract = field(default_factory=SamplingContract)
    template: PromptTemplate = field(default_factory=PromptTemplate)
    verification: VerificationConfig = field(default_factory=VerificationConfig)
    referee: ServiceConfig = field(default_factory=ServiceConfig)
    reward: RewardConfig = MISSING
    agreement: AgreementConfig = field(default_factory=AgreementConfig)
    shuffle_rewards: bool = False
    steps: int = MISSING
    seed: int = 0
    run_dir: str = MISSING
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    resume: str = "no"
    wandb: WandbMode = "offline"
    wandb_group: str = ""
    wandb_tags: list[str] = field(default_factory=list)
    dry_run: bool = False

    def __post_init__(self) -> None:
        require_least(self, 1, "steps")
        require_least(self, 0, "seed", most=MOST_SEED)
        require_resume(self.resume)
        for tag in self.wandb_tags:
            require(0 < len(tag) <= MOST_TAG, "wandb_tags", repr(tag), f"tags of 1 to {MOST_TAG} characters")
        require(
            self.pacing.groups_per_step >= self.learner.ranks,
            "learner.ranks",
            self.learner.ranks,
            f"at most pacing.groups_per_step ({self.pacing.groups_per_step}): each rank trains at least one group",
        )
        require(
            self.sampling.max_tokens < self.sampling.max_model_len,
            "sampling.max_tokens",
            self.sampling.max_tokens,
            f"below max_model_len ({self.sampling.max_model_len})",
        )
        require(
            not self.sampling.top_k or self.cluster.model_runner == "v2",
            "sampling.top_k",
            self.sampling.top_k,
            "0 in training, unless engines on GPUs have cluster.model_runner=v2: others do not return the tokens left "
            f"to draw from, and {OTHER_SOFTMAX}",
        )
        if self.reward.normalise != "sum":
            by = f"with reward.normalise = {self.reward.normalise}, which has its own baseline and scale"
            for key, neutral in (("baseline", "group"), ("divide_by_std", False)):
                value = getattr(self.algorithm, key)
                require(value == neutral, f"algorithm.{key}", value, f"{neutral} {by}")
        require(
            self.checkpoint.best is None or self.eval.every is not None,
            "checkpoint.best",
            self.checkpoint.best,
            "null without eval.every, whose results it compares",
        )
        RewardGraph(self.reward)
        self._require_overlong()
        self._require_reference()
        self.cluster.require_shares(self.memory_shares, self.learner.ranks, self.learner.reference.kind)

    def _require_overlong(self) -> None:
        """Require that a completion of sampling.max_tokens tokens is penalised by a term on overlong completions."""
        for name, term in self.reward.terms.items():
            if (term.use or name) == "overlong":
                try:
                    overlong_span(term.options.get("max_tokens"), term.options.get("cache"), self.sampling.max_tokens)
                except BadInput as error:
                    raise BadInput(f"reward.terms.{name}.options: {error}") from None

    def _require_reference(self) -> None:
        """Require a reference policy if a KL penalty uses it, and none otherwise."""
        kl, kind = self.algorithm.kl, self.learner.reference.kind
        wanted = "frozen or lora_off" if kl.coefficient else "none"
        why = "sets a KL penalty against the reference" if kl.coefficient else "is 0, so nothing would use it"
        require(
            self.learner.uses_reference == bool(kl.coefficient),
            "learner.reference.kind",
            kind,
            f"{wanted}: algorithm.kl.coefficient {why}",
        )
        require(
            not (kl.coefficient and kl.where == "reward" and self.reward.normalise == "each"),
            "algorithm.kl.where",
            kl.where,
            "loss with reward.normalise = each, which normalises each term, and the penalty is not a term",
        )

    @property
    def rank_share(self) -> float:
        """The part of a GPU that a rank gets, where it has one."""
        cluster = self.cluster
        return round(1 - self.engines * cluster.gpus_per_engine, 3) if cluster.colocated else cluster.gpus_per_rank

    @property
    def memory_shares(self) -> list[float]:
        """Each engine's share of a GPU's memory: of the policy's engines, and of those of referees in folders."""
        own = self.cluster.gpu_memory_utilization
        shares = [own] * self.cluster.rollout_engines
        for source in self.model.referee:
            if not source.url:
                shares += [source.gpu_memory_utilization or own] * source.replicas
        return shares

    @property
    def engines(self) -> int:
        """The policy's engines and those of all referees that are model folders."""
        return len(self.memory_shares)

    @property
    def gpus(self) -> float:
        """GPUs of all engines, including the referees', and of all ranks, including the reference's."""
        cluster = self.cluster
        if cluster.colocated:
            return 1.0
        reference = self.learner.reference
        ranks = self.learner.ranks + (reference.ranks if reference.kind == "frozen" else 0)
        return self.engines * cluster.gpus_per_engine + ranks * cluster.gpus_per_rank
