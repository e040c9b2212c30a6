"""A policy outside training: starts Ray, a frame store and rollout engines that complete prompts about videos.

    async with standalone_policy(config, samples) as policy:
        with await policy.lease(sample) as lease:
            prompt = policy.prompt(sample, lease)
            trajectories = await policy.generate(prompt, lease.frames)

Guarantees: an invalid config is refused before anything starts; frames and prompts follow the sampling contract and the
template, as in training; a task that is cancelled while it generates frees its place in the engine; an engine that dies
or hangs is restarted, and what it was generating is generated again; everything is stopped at the end of the block.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import ray
from omegaconf import MISSING

from evidence import spaces
from evidence.config_checks import MOST_SEED, require, require_least
from evidence.errors import RunFailed
from evidence.grammar import Completion
from evidence.limits import Limits
from evidence.sampling import SamplingContract, resolved, selection
from evidence.types import FrameInfo, Prompt, Sample, Trajectory
from orchestration.cluster_settings import ClusterConfig
from orchestration.preflight import most_images, note_box_space, require_frames_fit, require_length, require_tiles
from orchestration.reporting.awaiting import awaiting
from orchestration.settings import LEAST_TEMPERATURE
from orchestration.supervision.cluster import start_ray
from orchestration.supervision.engines import EngineSizes, standalone_engine
from orchestration.supervision.rollout_pool import GenerationTimeout, RolloutPool
from orchestration.supervision.standalone_referee import end_tasks
from orchestration.supervision.waiting import first_line
from rollout.frames.config import FramesConfig
from rollout.frames.store import FrameStore, Lease
from rollout.prompt import ChatEncoder, build_prompt, printed_times
from rollout.template import PromptTemplate

ATTEMPTS = 3  # as in training: a prompt that failed this often is the cause, not the engines
# The longest prompts of callers that do not know their questions in advance are checked one by one (`TooLong`).
UNKNOWN = Sample(id="", source="", task="", question="", answer="", video_path="")

log = logging.getLogger(__name__)


class TooLong(ValueError):
    """A prompt that leaves no room for its completion in the engine's context. The message is one line."""


class GenerationFailed(RunFailed):
    """A prompt at which the engines died or hung repeatedly."""


@dataclass(frozen=True)
class StandalonePolicyConfig:
    """How a policy is run outside training.

    model: a model folder. engine: sizes of its engines. max_tokens: the limit of one completion. temperature: 0 is
    greedy. cluster: only its keys for engines and frames are used. limits: only those of rollout engines are used.
    seed: vLLM's own.
    """

    model: str = MISSING
    engine: EngineSizes = field(default_factory=EngineSizes)
    max_tokens: int = 256
    temperature: float = 0.0
    contract: SamplingContract = field(default_factory=SamplingContract)
    template: PromptTemplate = field(default_factory=PromptTemplate)
    frames: FramesConfig = field(default_factory=FramesConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    limits: Limits = field(default_factory=Limits)
    seed: int = 0

    def __post_init__(self) -> None:
        require_least(self, 1, "max_tokens")
        require_least(self, 0, "seed", most=MOST_SEED)
        require(
            self.temperature == 0 or LEAST_TEMPERATURE <= self.temperature <= 2,
            "temperature",
            self.temperature,
            f"0, which is greedy, or {LEAST_TEMPERATURE} to 2",
        )
        longest = self.engine.max_model_len
        require(self.max_tokens < longest, "max_tokens", self.max_tokens, f"below engine.max_model_len ({longest})")


def check_policy(
    config: StandalonePolicyConfig, samples: Sequence[Sample] = ()
) -> tuple[StandalonePolicyConfig, ChatEncoder]:
    """Check everything that can be checked before anything starts. Returns the config with `contract.multiple`
    resolved, and the model's encoder. Raises BadInput. `samples`: what will be asked, as far as it is known."""
    samples = samples or [UNKNOWN]
    encoder = ChatEncoder(config.model)
    config = replace(config, contract=resolved(config.contract, encoder.tile))
    note_box_space(encoder.family, config.template)
    require_tiles(encoder.tile, config.contract, "policy")
    require_frames_fit(config.contract, samples, 1, "cluster.frames_gib", config.cluster.frames_gib)
    length = config.engine.max_model_len
    require_length(
        encoder, config.contract, config.template, samples, config.max_tokens, length, key="engine.max_model_len"
    )
    return config, encoder


class StandalonePolicy:
    """The running engines and their frame store. Use it from one event loop."""

    def __init__(self, config: StandalonePolicyConfig, encoder: ChatEncoder, pool: RolloutPool, store: FrameStore):
        """`config`: checked."""
        self.config, self.encoder, self.pool, self.store = config, encoder, pool, store

    async def lease(self, sample: Sample) -> Lease:
        """Lease the frames of a sample; use the lease in a `with`. Raises UnreadableMedia."""
        return await self.store.lease(sample.media_path, selection(sample, self.store.contract))

    def prefetch(self, samples: Iterable[Sample]) -> None:
        """Decode ahead the frames of samples that will be leased soon, in their order."""
        self.store.prefetch((s.media_path, selection(s, self.store.contract)) for s in samples)

    def prompt(self, asked: Sample | str, lease: Lease, notes: Mapping[int, str] | None = None) -> Prompt:
        """The prompt of a sample, or of a question, about leased frames. `notes`: see build_prompt. Raises TooLong."""
        sample = replace(UNKNOWN, question=asked) if isinstance(asked, str) else asked
        prompt = build_prompt(self.encoder, self.config.template, sample, lease.info, notes)
        length, most = len(prompt.token_ids), self.config.engine.max_model_len
        if length >= most:
            raise TooLong(f"its prompt has {length} tokens, and engine.max_model_len is {most}; raise it")
        return prompt

    async def generate(
        self,
        prompt: Prompt,
        frames: ray.ObjectRef,
        n: int = 1,
        temperature: float | None = None,
        max_tokens: int | None = None,
        seed: int = 0,
    ) -> tuple[Trajectory, ...]:
        """`n` completions of a prompt: greedy at temperature 0, where `n` must be 1.

        `temperature`, `max_tokens`: those of the config by default. `max_tokens` is lowered to the room that the prompt
        leaves. Completion i depends on `seed` and i only. Raises GenerationFailed, and RolloutPoolLost if no engine can
        be restarted.
        """
        temperature = self.config.temperature if temperature is None else temperature
        room = self.config.engine.max_model_len - len(prompt.token_ids)
        tokens = min(max_tokens or self.config.max_tokens, room)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                trajectories, _ = await self.pool.generate(
                    lambda version: True, prompt, frames, n, temperature, tokens, seed
                )
                return trajectories
            except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError, GenerationTimeout) as error:
                self.store.lost(error)
                log.warning("attempt %d of %d at a prompt failed: %s", attempt, ATTEMPTS, first_line(error))
                reason = first_line(error)
        raise GenerationFailed(f"a prompt failed {ATTEMPTS} times; last, {reason}")

    def parse(self, text: str, info: FrameInfo) -> Completion:
        """A completion about the frames `info`, with the boxes of its claims in pixels of these frames, and the frames'
        own times where the claims have those that the prompt printed."""
        template = self.config.template
        return spaces.read(text, info, template.box_space, printed_times(template, info, self.encoder))


@contextlib.asynccontextmanager
async def standalone_policy(
    config: StandalonePolicyConfig, samples: Sequence[Sample] = ()
) -> AsyncIterator[StandalonePolicy]:
    """Start Ray and the engines of `config`. Raises BadInput for a config that `check_policy` refuses.

    `samples`: what will be asked, as far as it is known. With contract.key_frames, all that will be asked.
    """
    config, encoder = check_policy(config, samples)
    cluster = config.cluster
    with start_ray(cluster.object_store_gib, cluster.gpus_per_engine * cluster.rollout_engines):
        async with running_policy(config, encoder, most_images(config.contract, samples or [UNKNOWN])) as policy:
            yield policy


@contextlib.asynccontextmanager
async def running_policy(
    config: StandalonePolicyConfig, encoder: ChatEncoder, images: int
) -> AsyncIterator[StandalonePolicy]:
    """Start the engines of a checked config in the Ray cluster of this process. At the end, all other tasks of the
    event loop are cancelled. `images`: the largest number that one prompt shows."""
    cluster = config.cluster
    native = config.template.native_video
    engine = standalone_engine(config.model, images, config.engine, cluster, native, config.seed)
    pool = RolloutPool(
        engine, encoder.banned_ids, None, cluster.rollout_engines, cluster.gpus_per_engine, config.limits
    )
    store = FrameStore(config.contract, int(cluster.frames_gib * 2**30), config.frames)
    try:
        with awaiting("rollout engines"):
            await pool.start()
        yield StandalonePolicy(config, encoder, pool, store)
    finally:
        await end_tasks()
