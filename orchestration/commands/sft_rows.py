"""Supervised rows: turns labelled samples into micro-batches, one ref per learner rank.

Guarantees: the batch of a step depends on the seed, the stage and the step only, so a resumed run sees the batches of
an uninterrupted one; a question comes with the frames that `ser train` shows for it; a clip that cannot be decoded, or
that hangs or kills its decoder, is left out and counted. A step without any usable clip ends the run.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from evidence.errors import BadInput, UnreadableMedia
from evidence.geometry import nearest_frame
from evidence.sampling import SamplingContract, Selection, selection
from evidence.types import FrameInfo, Sample
from learner.aggregation import token_weights
from learner.packing.shared_prefix import Unit, make_unit
from learner.packing.step import MicroBatch, StepTargets, lay_out, with_targets
from learner.settings import PackingConfig
from referee.trust.labelled_claims import make_claims
from referee.verification import KINDS, SCALE, VerificationConfig, images, parts
from rollout.dataset.mix import DataFile, DataShare, Mixture
from rollout.frames.config import FramesConfig
from rollout.frames.store import FrameStore, Lease
from rollout.prompt import ChatEncoder, build_prompt
from rollout.template import PromptTemplate


@dataclass(frozen=True)
class RowsConfig:
    """Settings for making rows.

    task: `answer` trains a policy on `reasoning_process`; `verify` trains a referee on true and corrupted claims made
    from the boxes (referee/trust/labelled_claims). clips: number per step. claims: number verified per clip.
    frames_bytes: budget for frames in the object store.
    """

    task: str
    clips: int
    claims: int
    packing: PackingConfig
    contract: SamplingContract
    template: PromptTemplate
    verification: VerificationConfig
    frames: FramesConfig
    frames_bytes: int


@dataclass(frozen=True)
class RowsReport:
    """The clips of a step's rows, the clips that were left out, and the frame store's counters.

    clips: distinct paths. unreadable: (path, reason) of clips that could not be decoded. over_budget: paths of clips
    with a sequence above the token budget.
    """

    clips: list[str]
    unreadable: list[tuple[str, str]]
    over_budget: list[str]
    frames: dict[str, int]


def answer_unit(
    encoder: ChatEncoder, template: PromptTemplate, samples: list[Sample], frames: np.ndarray, info: FrameInfo
) -> Unit:
    """All questions about one clip, which share its frames."""
    prompts = [build_prompt(encoder, template, sample, info) for sample in samples]
    answers = [encoder.encode_completion(s.reasoning or "") for s in samples]
    return make_unit(prompts, answers, [(info.key, frames)])


def verify_units(
    encoder: ChatEncoder,
    config: RowsConfig,
    sample: Sample,
    frames: np.ndarray,
    info: FrameInfo,
    rng: np.random.Generator,
    phrases: list[str],
) -> list[Unit]:
    """One unit per claim about one sample: the questions of both kinds, which share two images."""
    units = []
    for labelled in make_claims(sample, info, rng, config.claims, phrases):
        claim, cfg = labelled.claim, config.verification
        assert claim.box is not None, "made claims are valid"
        assert claim.time is not None, "made claims are valid"
        frame = frames[nearest_frame(info.times, claim.time)]
        prompts = [
            encoder.encode(parts(kind, labelled.question, claim.phrase, claim.time, info.size, cfg)) for kind in KINDS
        ]
        # Only the token of the scale: a verdict is one token, so the stop token need not be learnt.
        labels = (labelled.relevance, labelled.localization)
        answers = [encoder.encode_completion(SCALE[label])[:1] for label in labels]
        pixels = [image[None] for image in images(frame, claim.box, cfg)]
        units.append(make_unit(prompts, answers, [(image_key(image), image) for image in pixels]))
    return units


def image_key(image: np.ndarray) -> str:
    """A digest of shape and pixels."""
    return hashlib.blake2b(f"{image.shape}".encode() + image.tobytes(), digest_size=16).hexdigest()


class Rows:
    """Makes the micro-batches of a step. Must be used from one event loop."""

    def __init__(self, model: str, config: RowsConfig, stages: list[list[DataShare]], ranks: int, seed: int):
        self.config, self.ranks, self.seed = config, ranks, seed
        self.encoder = ChatEncoder(model)
        self.stages = [
            by_clip(shares, config.task, config.contract, seed + index) for index, shares in enumerate(stages)
        ]
        first = [clip[0] for stage in self.stages for part in stage.parts for clip in part[:200]]
        self.phrases = sorted({phrase for s in first for items in s.key_items.values() for phrase in items})
        self.store = FrameStore(config.contract, config.frames_bytes, config.frames, holders=config.clips)

    async def micro_batches(self, stage: int, step: int) -> tuple[list[MicroBatch] | RowsReport, ...]:
        """Each rank's micro-batches of one step, then the report on them. Raises BadInput if no clip is usable."""
        draws = range(step * self.config.clips, (step + 1) * self.config.clips)
        clips = [self.stages[stage][draw] for draw in draws]
        leases = await asyncio.gather(*map(self._lease, clips))
        try:
            rng = np.random.default_rng([self.seed, stage, step])
            units: list[Unit] = []
            paths: list[str] = []
            over_budget: list[str] = []
            for clip, lease in zip(clips, leases):
                if isinstance(lease, Lease):
                    clip_units = self._units(clip, await lease.frames, lease.info, rng)
                    if any(unit.longest > self.config.packing.token_budget for unit in clip_units):
                        over_budget.append(clip[0].media_path)
                    else:
                        units += clip_units
                        paths.append(clip[0].media_path)
            if not units:
                raise BadInput(
                    f"stage {stage}, step {step}: none of its clips can be decoded and fits "
                    f"packing.token_budget = {self.config.packing.token_budget}; `ser data check --media` lists the "
                    "clips that cannot be decoded"
                )
            unreadable = [(lease.path, lease.reason) for lease in leases if isinstance(lease, UnreadableMedia)]
            report = RowsReport(list(dict.fromkeys(paths)), unreadable, over_budget, self.store.counters())
            return *to_micro_batches(units, self.ranks, self.config.packing), report
        finally:
            for lease in leases:
                if isinstance(lease, Lease):
                    lease.release()

    async def _lease(self, samples: list[Sample]) -> Lease | UnreadableMedia:
        """The frames that all of `samples` show."""
        try:
            return await self.store.lease(samples[0].media_path, selection(samples[0], self.config.contract))
        except UnreadableMedia as error:
            return error

    def _units(
        self, samples: list[Sample], frames: np.ndarray, info: FrameInfo, rng: np.random.Generator
    ) -> list[Unit]:
        if self.config.task == "answer":
            return [answer_unit(self.encoder, self.config.template, samples, frames, info)]
        sample = samples[rng.integers(len(samples))]
        return verify_units(self.encoder, self.config, sample, frames, info, rng, self.phrases)


@ray.remote(num_cpus=0)
class RowSource:
    """Makes rows in a separate process, ahead of the learner. Its method is synchronous, so that steps are made one by
    one in the order of the calls, which Ray does not guarantee for asynchronous actors."""

    def __init__(self, *args: Any):
        self.rows, self.loop = Rows(*args), asyncio.Runner()

    def micro_batches(self, stage: int, step: int) -> tuple[list[MicroBatch] | RowsReport, ...]:
        """As Rows.micro_batches. Call with num_returns=ranks + 1."""
        return self.loop.run(self.rows.micro_batches(stage, step))


def by_clip(shares: list[DataShare], task: str, contract: SamplingContract, seed: int) -> Mixture[list[Sample]]:
    """A mixture whose items are the samples that show the same frames of the same clip. Raises BadInput if a dataset
    lacks the labels of the task."""
    return Mixture([_clips(share, task, contract) for share in shares], [share.weight for share in shares], seed)


def _clips(file: DataFile, task: str, contract: SamplingContract) -> list[list[Sample]]:
    clips: dict[tuple[str, Selection], list[Sample]] = defaultdict(list)
    path = file.path
    for sample in file.read():
        if task == "answer" and not sample.reasoning:
            raise BadInput(f"{path}: sample {sample.id} has no reasoning to train on; use an SFT dataset")
        if task == "verify" and not sample.key_items:
            raise BadInput(f"{path}: sample {sample.id} has no key_items to make claims from; use a dataset with boxes")
        clips[sample.media_path, selection(sample, contract)].append(sample)
    return list(clips.values())


def to_micro_batches(units: list[Unit], ranks: int, packing: PackingConfig) -> list[list[MicroBatch]]:
    """Each rank's micro-batches. The loss is one mean over all scored tokens of the step."""
    lengths = np.array([len(branch.targets) for unit in units for branch in unit.branches])
    weights = token_weights(lengths, "token_mean")
    zeros = np.zeros_like(weights)
    return with_targets(lay_out(units, ranks, packing), StepTargets(weights, zeros, zeros))
