"""Checks of a run before anything starts or is written. Every refusal is a BadInput."""

from __future__ import annotations

import difflib
import logging
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from evidence.errors import BadInput
from evidence.sampling import SamplingContract, most_bytes, most_frames, resized_size, shown_key_times
from evidence.types import FrameInfo, Sample
from learner.packing.shared_prefix import sequence_tokens
from orchestration.settings import TrainConfig
from referee.reward.settings import RewardConfig
from referee.service.engine_backend import scale_token_ids
from referee.service.sources import RefereeSource, read_calibration
from referee.verification import VerificationConfig
from rollout.dataset.media import decoded
from rollout.dataset.mix import DataFile, Mixture
from rollout.frames.config import FramesConfig
from rollout.prompt import ChatEncoder, build_prompt
from rollout.template import PromptTemplate

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainInputs:
    """What a checked training config names, read. images: the most that one prompt shows."""

    train: Mixture[Sample]
    heldout: list[Sample]
    encoder: ChatEncoder
    images: int


def check_train(config: TrainConfig) -> TrainInputs:
    """Check all of a training config that can be checked before anything starts. Raises BadInput."""
    shares = config.data.train
    parts, examples = zip(*(readable_samples(share, config.contract, config.frames) for share in shares))
    train = Mixture(parts, [share.weight for share in shares], config.seed)
    require_tasks(config.reward, train.items)
    heldout = heldout_samples(config)
    encoder = ChatEncoder(config.model.policy)
    require_tiles(encoder.tile, config.contract, "policy")
    for source in config.model.referee:
        require_referee(source, config.contract, config.verification)
    samples = [*train.items, *heldout]
    budget = "cluster.frames_gib", config.cluster.frames_gib
    require_frames_fit(config.contract, samples, config.pacing.groups_per_step, *budget)
    longest = config.sampling.max_tokens
    require_length(encoder, config.contract, config.template, samples, longest, config.sampling.max_model_len)
    require_budget(encoder, config.template, examples, longest, config.learner.packing.token_budget)
    for key, folder in (("frames", config.frames.cache_dir), ("referee", config.referee.cache_dir)):
        if folder:
            require_folder(f"{key}.cache_dir", folder)
    return TrainInputs(train, heldout, encoder, most_images(config.contract, samples))


def heldout_samples(config: TrainConfig) -> list[Sample]:
    """The first `eval.samples` held-out samples. Raises BadInput if there are fewer."""
    heldout, _ = readable_samples(config.data.heldout, config.contract, config.frames)
    if len(heldout) < config.eval.samples:
        file = config.data.heldout.path
        raise BadInput(f"eval.samples = {config.eval.samples}: {file} has {len(heldout)}; ask for fewer")
    return heldout[: config.eval.samples]


def readable_samples(
    file: DataFile, contract: SamplingContract, frames: FramesConfig
) -> tuple[list[Sample], tuple[Sample, FrameInfo]]:
    """The samples of a dataset, and the first of which the media file can be decoded, usually the very first."""
    samples = file.read()
    paths = list(dict.fromkeys(sample.media_path for sample in samples))
    reasons = []
    for path, found in decoded(paths, contract, 1, frames.timeout_s, frames.worker_bytes):
        if isinstance(found, FrameInfo):
            return samples, (next(sample for sample in samples if sample.media_path == path), found)
        reasons.append(f"{path}: {found}")
    raise BadInput(
        f"{file.path}: none of its media files can be read, the first is {reasons[0]}; "
        f"`ser data check {file.path} --media` names all"
    )


def most_key_times(contract: SamplingContract, samples: Sequence[Sample]) -> tuple[float, ...]:
    """The key times shown of the sample that has the most of them."""
    return max((shown_key_times(sample, contract) for sample in samples), key=len)


def most_images(contract: SamplingContract, samples: Sequence[Sample]) -> int:
    """The most frames that one prompt shows."""
    return most_frames(contract, most_key_times(contract, samples))


def require_frames_fit(
    contract: SamplingContract, samples: Sequence[Sample], clips_per_step: int, key: str, frames_gib: float
) -> None:
    """The frames of any step's clips (one a group) have to fit the store at once, or no step could ever be complete.
    `key`: where `frames_gib` was said."""
    step_bytes = clips_per_step * most_bytes(contract, most_key_times(contract, samples))
    if step_bytes > int(frames_gib * 2**30):
        raise BadInput(
            f"{key} = {frames_gib}: it has to be at least {math.ceil(step_bytes / 2**30 * 1000) / 1000}, "
            f"what the frames of a step's {clips_per_step} clips can take, up to {most_images(contract, samples)} "
            "each; or lower contract.frames, contract.max_pixels or contract.total_pixels"
        )


def require_tasks(reward: RewardConfig, samples: Iterable[Sample]) -> None:
    """A term that names tasks has to concern some sample. A task of several that is not there is only told, since a
    recipe may serve more than one data set."""
    there = sorted({sample.task for sample in samples})
    for name, term in reward.terms.items():
        for missing in [task for task in term.tasks if task not in there]:
            near = difflib.get_close_matches(missing, there, n=1, cutoff=0)[0]
            told = (
                f"reward.terms.{name}.tasks: no sample of data.train is of the task {missing!r}; the nearest is "
                f"{near!r}, of {', '.join(map(repr, there))}"
            )
            if not set(there).intersection(term.tasks):
                raise BadInput(f"{told}. The term would never be paid: name a task that is there, or leave it out")
            log.warning("%s", told)


def require_tiles(tile: int, contract: SamplingContract, role: str) -> None:
    """Frames must be made of whole tiles of the model's vision tower."""
    if contract.multiple % tile:
        raise BadInput(
            f"contract.multiple = {contract.multiple}: the {role} sees tiles of {tile} pixels; "
            f"make it a multiple of {tile}"
        )


def require_crop_tiles(tile: int, verification: VerificationConfig) -> None:
    """And so must the referee's crops."""
    if any(side < 1 or side % tile for side in verification.crop_size):
        raise BadInput(
            f"verification.crop_size = {list(verification.crop_size)}: the referee sees tiles of {tile} "
            f"pixels; make both sides multiples of {tile}"
        )


def require_referee(source: RefereeSource, contract: SamplingContract, verification: VerificationConfig) -> None:
    """A folder has to hold a model that sees whole tiles and knows the scale, an endpoint's key has to be there."""
    if source.calibration:
        read_calibration(source.calibration)
    if source.url:
        source.api_key()
        return
    encoder = ChatEncoder(source.model)
    scale_token_ids(encoder)
    require_tiles(encoder.tile, contract, "referee")
    require_crop_tiles(encoder.tile, verification)


def require_length(
    encoder: ChatEncoder,
    contract: SamplingContract,
    template: PromptTemplate,
    samples: Sequence[Sample],
    max_tokens: int,
    max_model_len: int,
) -> None:
    """A prompt of full-sized frames, the longest question and a completion have to fit the engine's context."""
    images = most_images(contract, samples)
    size = resized_size(1000, 1000, contract, images)
    info = FrameInfo("", tuple(map(float, range(images))), size, size, float(images))
    longest = max(samples, key=lambda sample: len(template.ask(sample, info.duration)))
    length = len(build_prompt(encoder, template, longest, info).token_ids) + max_tokens
    if length > max_model_len:
        raise BadInput(
            f"sampling.max_model_len = {max_model_len}: a prompt of {images} frames and its completion can take "
            f"{length} tokens; raise it, or lower contract.frames or contract.max_pixels"
        )


def require_budget(
    encoder: ChatEncoder,
    template: PromptTemplate,
    looked_at: Iterable[tuple[Sample, FrameInfo]],
    max_tokens: int,
    token_budget: int,
) -> None:
    """A forward has to hold some prompt with one completion of full length, down to which a group can be split.

    `looked_at`: a clip of each dataset file, which stands for it: how long a prompt is, only decoding tells. Where one
    of them fits, the data is mixed, and what does not fit is for the run to count (over_budget).
    """
    prompts = [len(build_prompt(encoder, template, sample, info).token_ids) for sample, info in looked_at]
    least = sequence_tokens(min(prompts), max_tokens)
    if least > token_budget:
        raise BadInput(
            f"learner.packing.token_budget = {token_budget}: a prompt of {min(prompts)} tokens, data.train's, and a "
            f"completion run {least} tokens; raise it, or lower sampling.max_tokens, contract.frames or "
            "contract.max_pixels"
        )


def require_folder(key: str, name: str | Path) -> Path:
    """`name` as an absolute path at which a folder is or can be made."""
    path = Path(name).absolute()
    there = next(p for p in (path, *path.parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        what = "cannot be written to" if there.is_dir() else "is a file"
        raise BadInput(f"{key} = {name}: {there} {what}; name a folder that can be made")
    return path
