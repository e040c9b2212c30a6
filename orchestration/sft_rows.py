"""Supervised rows: from labelled samples to micro-batches, one ref per learner rank.

Guarantee: the batch of a step depends on the seed, the stage and the step alone, so a resumed run sees what the
uninterrupted one would have seen. A clip that cannot be decoded is left out and counted.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import partial

import numpy as np
import ray
from cachetools import LRUCache, cached

from evidence.errors import BadInput, UnreadableMedia
from evidence.geometry import nearest_frame
from evidence.sampling import SamplingContract, shown_key_times
from evidence.types import FrameInfo, Sample
from learner.actor import MicroBatch
from learner.losses import token_mean_weights
from learner.packing import Row, pack_row, split_by_tokens, stack_rows
from referee.claims import make_claims
from referee.verification import KINDS, SCALE, VerificationConfig, images, parts
from rollout.dataset.mix import DataFile, DataShare, Mixture
from rollout.frames import decode
from rollout.prompt import ChatEncoder, build_prompt
from rollout.template import PromptTemplate


@dataclass(frozen=True)
class RowsConfig:
    """What the rows are made of.

    task: `answer` trains a policy on `reasoning_process`; `verify` trains a referee on true and corrupted claims made
    from the boxes (referee/claims). clips: per step. claims: verified per clip.
    """

    task: str
    clips: int
    claims: int
    token_budget: int
    contract: SamplingContract
    template: PromptTemplate
    verification: VerificationConfig


# Epochs see the same clips again, and decoding is half of a row's cost: what is kept of the frames, in bytes.
DECODED_BYTES = 2 * 2**30

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


@ray.remote
class RowSource:
    """Makes the micro-batches of a step, in a process of its own, ahead of the learner."""

    def __init__(self, model: str, config: RowsConfig, stages: list[list[DataShare]], ranks: int, seed: int):
        self.config, self.ranks, self.seed = config, ranks, seed
        self.encoder = ChatEncoder(model)
        self.stages = [by_clip(shares, config.task, seed + number) for number, shares in enumerate(stages)]
        few = [clip[0] for stage in self.stages for part in stage.parts for clip in part[:200]]
        self.phrases = sorted({phrase for s in few for items in s.key_items.values() for phrase in items})
        self.unreadable: set[str] = set()
        cache = LRUCache(DECODED_BYTES, getsizeof=lambda entry: entry[0].nbytes)
        self.decode = cached(cache)(partial(decode, contract=config.contract))

    def micro_batches(self, stage: int, step: int) -> tuple[list[MicroBatch], ...] | list[MicroBatch]:
        """Each rank's micro-batches of one step (call with num_returns=ranks)."""
        clips = self.stages[stage]
        rng = np.random.default_rng([self.seed, stage, step])
        examples: list[Example] = []
        for draw in range(step * self.config.clips, (step + 1) * self.config.clips):
            examples += self._examples(clips[draw], rng)
        if len(examples) < self.ranks:
            raise BadInput(
                f"stage {stage}, step {step}: {len(examples)} rows for {self.ranks} ranks; `ser data check --media` "
                "says which clips cannot be read"
            )
        parts = to_micro_batches(examples, self.ranks, self.config.token_budget)
        return tuple(parts) if self.ranks > 1 else parts[0]

    def unreadable_clips(self) -> int:
        return len(self.unreadable)

    def _examples(self, samples: list[Sample], rng: np.random.Generator) -> list[Example]:
        try:
            key_times = sorted({time for s in samples for time in shown_key_times(s, self.config.contract)})
            frames, info = self.decode(samples[0].media_path, key_times=tuple(key_times))
        except UnreadableMedia as error:
            self.unreadable.add(error.path)
            return []
        if self.config.task == "answer":
            return [answer_example(self.encoder, self.config.template, samples, frames, info)]
        sample = samples[rng.integers(len(samples))]
        return verify_examples(self.encoder, self.config, sample, frames, info, rng, self.phrases)


def by_clip(shares: list[DataShare], task: str, seed: int) -> Mixture[list[Sample]]:
    """Samples that show the same clip, together. Raises BadInput if a dataset lacks the labels of the task."""
    return Mixture([_clips(share, task) for share in shares], [share.weight for share in shares], seed)


def _clips(file: DataFile, task: str) -> list[list[Sample]]:
    clips: dict[str, list[Sample]] = defaultdict(list)
    path = file.path
    for sample in file.read():
        if task == "answer" and not sample.reasoning:
            raise BadInput(f"{path}: sample {sample.id} has no reasoning to learn from; use an SFT dataset")
        if task == "verify" and not sample.key_items:
            raise BadInput(f"{path}: sample {sample.id} has no key_items to make claims from; use a dataset with boxes")
        clips[sample.media_path].append(sample)
    return list(clips.values())


def to_micro_batches(examples: list[Example], ranks: int, budget: int) -> list[list[MicroBatch]]:
    """Each rank's micro-batches; the loss is one mean over all scored tokens of the step."""
    rows = [row for row, _ in examples]
    weight = token_mean_weights(np.array([len(row.targets) for row in rows]))[0]
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
