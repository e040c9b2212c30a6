"""Supervised rows: from labelled samples to micro-batches, one ref per learner rank.

Guarantees: the batch of a step depends on the seed, the stage and the step alone, so a resumed run sees what the
uninterrupted one would have seen; a question is shown the frames that `ser train` shows for it; a clip that cannot be
decoded, or that hangs or kills its decoder, is left out and counted.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from evidence.errors import BadInput, UnreadableMedia
from evidence.geometry import nearest_frame
from evidence.sampling import SamplingContract, shown_key_times
from evidence.types import FrameInfo, Sample
from learner.aggregation import token_weights
from learner.micro import MicroBatch
from learner.packing import Row, pack_row, split_by_tokens, stack_rows
from orchestration.frame_store import FrameStore, Lease
from orchestration.settings import FramesConfig
from referee.claims import make_claims
from referee.verification import KINDS, SCALE, VerificationConfig, images, parts
from rollout.dataset.mix import DataFile, DataShare, Mixture
from rollout.prompt import ChatEncoder, build_prompt
from rollout.template import PromptTemplate


@dataclass(frozen=True)
class RowsConfig:
    """What the rows are made of.

    task: `answer` trains a policy on `reasoning_process`; `verify` trains a referee on true and corrupted claims made
    from the boxes (referee/claims). clips: per step. claims: verified per clip. frames_bytes: what frames may take of
    the object store.
    """

    task: str
    clips: int
    claims: int
    token_budget: int
    contract: SamplingContract
    template: PromptTemplate
    verification: VerificationConfig
    frames: FramesConfig
    frames_bytes: int


@dataclass(frozen=True)
class Made:
    """What is told of a step's rows: (path, reason) of each draw that was left out, and the frame store's counters."""

    unreadable: list[tuple[str, str]]
    frames: dict[str, int]


# A row with the images of its prefix, uint8 [n, H, W, 3] each.
Example = tuple[Row, tuple[np.ndarray, ...]]


def answer_example(
    encoder: ChatEncoder, template: PromptTemplate, samples: list[Sample], frames: np.ndarray, info: FrameInfo
) -> Example:
    """All questions about one clip in one row, the clip's frames shared."""
    prompts = [build_prompt(encoder, template, sample, info) for sample in samples]
    return pack_row(prompts, [encoder.encode_completion(s.reasoning or "") for s in samples]), (frames,)


def verify_examples(
    encoder: ChatEncoder,
    config: RowsConfig,
    sample: Sample,
    frames: np.ndarray,
    info: FrameInfo,
    rng: np.random.Generator,
    phrases: list[str],
) -> list[Example]:
    """One row per claim about one sample: both questions about it, the two images shared."""
    examples = []
    for made in make_claims(sample, info, rng, config.claims, phrases):
        claim, cfg = made.claim, config.verification
        frame = frames[nearest_frame(info.times, claim.time)]
        prompts = [
            encoder.encode(parts(kind, made.question, claim.phrase, claim.time, info.size, cfg)) for kind in KINDS
        ]
        # The scale's token alone: a verdict is one token, so the stop after it need not be learnt.
        answers = [encoder.encode_completion(SCALE[label])[:1] for label in (made.relevance, made.localization)]
        pixels = tuple(image[None] for image in images(frame, claim.box, cfg))
        examples.append((pack_row(prompts, answers), pixels))
    return examples


class Rows:
    """Makes the micro-batches of a step. To be used from one event loop."""

    def __init__(self, model: str, config: RowsConfig, stages: list[list[DataShare]], ranks: int, seed: int):
        self.config, self.ranks, self.seed = config, ranks, seed
        self.encoder = ChatEncoder(model)
        self.stages = [
            by_clip(shares, config.task, config.contract, seed + number) for number, shares in enumerate(stages)
        ]
        few = [clip[0] for stage in self.stages for part in stage.parts for clip in part[:200]]
        self.phrases = sorted({phrase for s in few for items in s.key_items.values() for phrase in items})
        self.store = FrameStore(config.contract, config.frames_bytes, config.frames, holders=config.clips)

    async def micro_batches(self, stage: int, step: int) -> tuple[list[MicroBatch] | Made, ...]:
        """Each rank's micro-batches of one step, and what is told of them."""
        draws = range(step * self.config.clips, (step + 1) * self.config.clips)
        clips = [self.stages[stage][draw] for draw in draws]
        looks = await asyncio.gather(*map(self._look, clips))
        try:
            rng = np.random.default_rng([self.seed, stage, step])
            examples: list[Example] = []
            for clip, look in zip(clips, looks):
                if isinstance(look, Lease):
                    examples += self._examples(clip, await look.frames, look.info, rng)
            if len(examples) < self.ranks:
                raise BadInput(
                    f"stage {stage}, step {step}: {len(examples)} rows for {self.ranks} ranks; `ser data check "
                    "--media` says which clips cannot be read"
                )
            unreadable = [(look.path, look.reason) for look in looks if isinstance(look, UnreadableMedia)]
            made = Made(unreadable, self.store.counters())
            return *to_micro_batches(examples, self.ranks, self.config.token_budget), made
        finally:
            for look in looks:
                if isinstance(look, Lease):
                    look.release()

    async def _look(self, samples: list[Sample]) -> Lease | UnreadableMedia:
        """The frames of samples that show the same ones."""
        try:
            return await self.store.lease(samples[0].media_path, shown_key_times(samples[0], self.config.contract))
        except UnreadableMedia as error:
            return error

    def _examples(
        self, samples: list[Sample], frames: np.ndarray, info: FrameInfo, rng: np.random.Generator
    ) -> list[Example]:
        if self.config.task == "answer":
            return [answer_example(self.encoder, self.config.template, samples, frames, info)]
        sample = samples[rng.integers(len(samples))]
        return verify_examples(self.encoder, self.config, sample, frames, info, rng, self.phrases)


@ray.remote(num_cpus=0)
class RowSource:
    """Rows in a process of their own, ahead of the learner: one step after the other as they are asked for, which Ray
    does not promise of an actor whose methods are asynchronous."""

    def __init__(self, *args: Any):
        self.rows, self.loop = Rows(*args), asyncio.Runner()

    def micro_batches(self, stage: int, step: int) -> tuple[list[MicroBatch] | Made, ...]:
        """Call with num_returns=ranks + 1."""
        return self.loop.run(self.rows.micro_batches(stage, step))


def by_clip(shares: list[DataShare], task: str, contract: SamplingContract, seed: int) -> Mixture[list[Sample]]:
    """Samples that show the same frames of the same clip, together. Raises BadInput if a dataset lacks the labels of
    the task."""
    return Mixture([_clips(share, task, contract) for share in shares], [share.weight for share in shares], seed)


def _clips(file: DataFile, task: str, contract: SamplingContract) -> list[list[Sample]]:
    clips: dict[tuple[str, tuple[float, ...]], list[Sample]] = defaultdict(list)
    path = file.path
    for sample in file.read():
        if task == "answer" and not sample.reasoning:
            raise BadInput(f"{path}: sample {sample.id} has no reasoning to learn from; use an SFT dataset")
        if task == "verify" and not sample.key_items:
            raise BadInput(f"{path}: sample {sample.id} has no key_items to make claims from; use a dataset with boxes")
        clips[sample.media_path, shown_key_times(sample, contract)].append(sample)
    return list(clips.values())


def to_micro_batches(examples: list[Example], ranks: int, budget: int) -> list[list[MicroBatch]]:
    """Each rank's micro-batches; the loss is one mean over all scored tokens of the step."""
    rows = [row for row, _ in examples]
    weight = token_weights(np.array([len(row.targets) for row in rows]), "token_mean")[0]
    parts = []
    for rank in split_by_tokens(rows, ranks, budget):
        micro = []
        for indices in rank:
            batch = stack_rows([rows[i] for i in indices])
            zeros = np.zeros(len(batch.targets), np.float32)
            images = tuple(image for i in indices for image in examples[i][1])
            micro.append(MicroBatch(batch, images, np.full_like(zeros, weight), zeros, zeros))
        parts.append(micro)
    return parts
