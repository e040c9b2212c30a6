"""Checks of a run before anything starts or is written. Each one raises BadInput."""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from evaluation.heldout import METRICS
from evidence.digests import file_digest
from evidence.errors import BadInput
from evidence.families import Family
from evidence.sampling import SamplingContract, Selection, most_bytes, most_frames, resized_size, resolved, selection
from evidence.types import FrameInfo, Sample
from learner.packing.shared_prefix import sequence_tokens
from orchestration.benchmark_questions import Questions, read_questions
from orchestration.eval_settings import HELDOUT
from orchestration.folders import require_folder
from orchestration.machine import gpu_memory_gib
from orchestration.planning.gpus import GPUS
from orchestration.planning.plan import Planner
from orchestration.settings import TrainConfig
from referee.reward.settings import RewardConfig
from referee.service.engine_backend import scale_token_ids
from referee.service.sources import RefereeSource, read_calibration
from referee.terms.references import READ_REFERENCE, unscorable
from referee.verification import VerificationConfig
from rollout.dataset.media import decoded
from rollout.dataset.mix import DataFile, Mixture
from rollout.engine_setup import returns_kept_sets
from rollout.frames.config import FramesConfig
from rollout.prompt import ChatEncoder, build_prompt
from rollout.template import PromptTemplate

log = logging.getLogger(__name__)
# Clips that are evaluated unless eval.samples says otherwise: the 95% interval of an accuracy of .7 is then +-.04, and
# each of a run's four passes over them takes the quickstart as long as nine steps.
MOST_HELDOUT = 512
# The logit biases of a request that vLLM 0.32 takes with its V2 model runner, which runs on GPUs.
MOST_BIASED = 1024


@dataclass(frozen=True)
class TrainInputs:
    """The inputs that a checked training config names. images: the largest number that one prompt shows. digests:
    SHA-256 of each dataset file, by its path. benchmarks: those of eval.benchmarks."""

    train: Mixture[Sample]
    heldout: list[Sample]
    encoder: ChatEncoder
    images: int
    digests: dict[str, str]
    benchmarks: Sequence[Questions] = ()


def check_train(config: TrainConfig) -> tuple[TrainConfig, TrainInputs]:
    """Check everything in a training config that can be checked before anything starts. Returns the config, with
    `contract.multiple` and `limits` resolved from the policy, and its inputs. Raises BadInput."""
    encoder = ChatEncoder(config.model.policy)
    contract = resolved(config.contract, encoder.tile)
    limits = config.limits.for_weights(weight_bytes(config.model.policy))
    for key in (
        limit.name for limit in fields(limits) if getattr(limits, limit.name) != getattr(config.limits, limit.name)
    ):
        log.warning("limits.%s = %g s: raised for the model's weights (limits.mib_per_s)", key, getattr(limits, key))
    config = replace(config, contract=contract, limits=limits)
    note_box_space(encoder.family, config.template)
    shares = config.data.train
    parts, examples = zip(*(readable_samples(share, config.contract, config.frames) for share in shares))
    train = Mixture(parts, [share.weight for share in shares], config.seed)
    require_tasks(config.reward, train.items)
    require_scorable(config.reward, "data.train", list(train.items), config.data.max_unscorable)
    heldout = heldout_samples(config)
    require_scorable(config.reward, "data.heldout", heldout, config.data.max_unscorable)
    require_tiles(encoder.tile, config.contract, "policy")
    for source in config.model.referee:
        require_referee(source, config.verification)
    benchmarks = [read_questions(benchmark, contract, config.template) for benchmark in config.eval.benchmarks]
    require_best(config.checkpoint.best, heldout, benchmarks)
    samples = [*train.items, *heldout, *(sample for questions in benchmarks for sample in questions.samples)]
    budget = "cluster.frames_gib", config.cluster.frames_gib
    require_frames_fit(config.contract, samples, config.pacing.groups_per_step, *budget)
    if config.cluster.gpus_per_engine and len(encoder.banned_ids) > MOST_BIASED:
        raise BadInput(
            f"{config.model.policy}: {len(encoder.banned_ids)} tokens may not be sampled, and vLLM takes at most "
            f"{MOST_BIASED} on a GPU; remove unused control tokens from its tokenizer"
        )
    if config.sampling.top_k and not returns_kept_sets():
        raise BadInput(
            f"sampling.top_k = {config.sampling.top_k}: must be 0: the installed vLLM cannot return the tokens left to "
            "draw from; that takes its GPU build, 0.32 or later"
        )
    longest = config.sampling.max_tokens
    require_length(encoder, config.contract, config.template, samples, longest, config.sampling.max_model_len)
    require_budget(encoder, config.template, examples, longest, config.learner.packing.token_budget)
    if config.gpus:
        require_fits(config, gpu_memory_gib())
    for key, folder in (("frames", config.frames.cache_dir), ("referee", config.referee.cache_dir)):
        if folder:
            require_folder(f"{key}.cache_dir", folder)
    digests = {file.path: file_digest(Path(file.path)) for file in (*shares, config.data.heldout)}
    images = most_images(config.contract, samples)
    return config, TrainInputs(train, heldout, encoder, images, digests, benchmarks)


def weight_bytes(folder: str) -> int:
    """The bytes of a model folder's weights."""
    return sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))


def shared_paths(config: TrainConfig, inputs: TrainInputs) -> list[str]:
    """The files and folders of a run that actors read, on whichever node they are placed; the first media file of each
    dataset stands for all."""
    models = [config.model.policy, *(source.model for source in config.model.referee if not source.url)]
    files = [file.path for file in (*config.data.train, config.data.heldout)]
    first = [*(part[0] for part in inputs.train.parts), *inputs.heldout[:1]]
    paths = [*models, *files, *(sample.media_path for sample in first)]
    return [str(Path(path).absolute()) for path in paths]  # a worker has a working directory of its own


def heldout_samples(config: TrainConfig) -> list[Sample]:
    """The first `eval.samples` held-out samples, or up to MOST_HELDOUT if that is null. Raises BadInput if there are
    fewer than are set."""
    heldout, _ = readable_samples(config.data.heldout, config.contract, config.frames)
    wanted, file = config.eval.samples, config.data.heldout.path
    if wanted is not None and len(heldout) < wanted:
        raise BadInput(
            f"eval.samples = {wanted}: {file} has {len(heldout)} samples; set a lower value, or null for up to "
            f"{MOST_HELDOUT}"
        )
    return heldout[: MOST_HELDOUT if wanted is None else wanted]


def require_best(best: str | None, heldout: Sequence[Sample], benchmarks: Sequence[Questions]) -> None:
    """Require that checkpoint.best is the set and the metric of an evaluation."""
    if best is None:
        return
    known = {questions.config.set_name: questions for questions in benchmarks}
    sets = [HELDOUT, *known] if heldout else list(known)
    name, _, metric = best.partition("/")
    if name not in sets:
        raise BadInput(f"checkpoint.best = {best}: must be SET/METRIC with one of the sets {', '.join(sets)}")
    metrics = known[name].metrics if name in known else METRICS
    if metric not in metrics:
        raise BadInput(f"checkpoint.best = {best}: the metrics of {name} are {', '.join(metrics)}")


def readable_samples(
    file: DataFile, contract: SamplingContract, frames: FramesConfig
) -> tuple[list[Sample], tuple[Sample, FrameInfo]]:
    """The samples of a dataset, and the first sample whose media file can be decoded, with its frames."""
    samples = file.read()
    rates: dict[str, float | None] = {}
    for sample in samples:
        rates.setdefault(sample.media_path, sample.fps)
    reasons = []
    for path, outcome in decoded(rates, contract, 1, frames.timeout_s, frames.worker_bytes):
        if isinstance(outcome, FrameInfo):
            return samples, (next(sample for sample in samples if sample.media_path == path), outcome)
        reasons.append(f"{path}: {outcome}")
    raise BadInput(
        f"{file.path}: none of its media files can be read, the first is {reasons[0]}; "
        f"`ser data check {file.path} --media` lists them all"
    )


def largest_selection(contract: SamplingContract, samples: Sequence[Sample]) -> Selection:
    """That of the sample with the most key frames."""
    return max((selection(sample, contract) for sample in samples), key=lambda selected: len(selected.key_times))


def most_images(contract: SamplingContract, samples: Sequence[Sample]) -> int:
    """The largest number of frames that one prompt shows."""
    return most_frames(contract, largest_selection(contract, samples))


def require_frames_fit(
    contract: SamplingContract, samples: Sequence[Sample], clips_per_step: int, key: str, frames_gib: float
) -> None:
    """Require that the frames of a step's clips (one per group) fit the store at once; if not, no step could complete.
    `key`: the config key of `frames_gib`."""
    step_bytes = clips_per_step * most_bytes(contract, largest_selection(contract, samples))
    clips = f"a step's {clips_per_step} clips" if clips_per_step > 1 else "one clip"
    if step_bytes > int(frames_gib * 2**30):
        raise BadInput(
            f"{key} = {frames_gib}: must be at least {math.ceil(step_bytes / 2**30 * 1000) / 1000}, the size of the "
            f"frames of {clips}, up to {most_images(contract, samples)} each; raise it, or "
            "lower contract.frames, contract.max_pixels or contract.total_pixels"
        )


def require_tasks(reward: RewardConfig, samples: Iterable[Sample]) -> None:
    """Require that each term that names tasks applies to some sample. If only some of its tasks are missing, a warning
    is logged, since a recipe may serve more than one dataset."""
    present = sorted({sample.task for sample in samples})
    for name, term in reward.terms.items():
        for missing in [task for task in term.tasks if task not in present]:
            near = difflib.get_close_matches(missing, present, n=1, cutoff=0)[0]
            message = (
                f"reward.terms.{name}.tasks: no sample of data.train has the task {missing!r}; the nearest is "
                f"{near!r}, of {', '.join(map(repr, present))}"
            )
            if not set(present).intersection(term.tasks):
                raise BadInput(f"{message}. The term would never count: name a task of the data, or remove the term")
            log.warning("%s", message)


def require_scorable(reward: RewardConfig, key: str, samples: Sequence[Sample], most: float) -> None:
    """Require that at most a share of `most` of the samples of `key` have references that no answer can satisfy; log a
    warning if there are any. Only samples are checked to which a built-in term applies that reads the reference."""
    reading = [term for name, term in reward.terms.items() if (term.use or name) in READ_REFERENCE]
    samples = [s for s in samples if any(not term.tasks or s.task in term.tasks for term in reading)]
    reasons = [f"sample {s.id}: {reason}" for s in samples if (reason := unscorable(s)) is not None]
    if not reasons:
        return
    share = len(reasons) / len(samples)
    message = (
        f"{key}: {len(reasons)} of {len(samples)} samples ({share:.2%}) have a reference that no answer can satisfy, "
        f"the first is {reasons[0]}; `ser data check` lists them all"
    )
    if share > most:
        raise BadInput(f"{message}. Repair or remove them, or raise data.max_unscorable ({most:g})")
    log.warning("%s", message)


def require_tiles(tile: int, contract: SamplingContract, role: str) -> None:
    """Require frames that consist of whole tiles of the model's vision tower. `tile`: its side in pixels."""
    if contract.tile % tile:
        raise BadInput(
            f"contract.multiple = {contract.multiple}: the {role} takes tiles of {tile} pixels; "
            f"make it a multiple of {tile}"
        )


def note_box_space(family: Family, template: PromptTemplate) -> None:
    """Log a warning if boxes are read in another space than the one in which the policy's family writes them."""
    if template.box_space != family.box_space:
        log.warning(
            "template.box_space = %s: published %s models write boxes as %s; set that unless the policy was taught %s",
            *(template.box_space, family.model_type, family.box_space, template.box_space),
        )


def require_crop_tiles(tile: int, verification: VerificationConfig) -> None:
    """Require referee crops that consist of whole tiles. `tile`: its side in pixels."""
    if any(side < 1 or side % tile for side in verification.crop_size):
        raise BadInput(
            f"verification.crop_size = {list(verification.crop_size)}: the referee takes tiles of {tile} "
            f"pixels; make both sides multiples of {tile}"
        )


def require_referee(source: RefereeSource, verification: VerificationConfig) -> None:
    """Require, for a folder, a model with the scale's tokens and tiles that fit the crops; for an endpoint, its key."""
    if source.calibration:
        read_calibration(source.calibration)
    if source.url:
        source.api_key()
        return
    encoder = ChatEncoder(source.model)
    scale_token_ids(encoder)
    require_crop_tiles(encoder.tile, verification)


def require_length(
    encoder: ChatEncoder,
    contract: SamplingContract,
    template: PromptTemplate,
    samples: Sequence[Sample],
    max_tokens: int,
    max_model_len: int,
    key: str = "sampling.max_model_len",
) -> None:
    """Require that full-sized frames with the longest question and a completion fit the engine's context. `key`: the
    config key of `max_model_len`."""
    images = most_images(contract, samples)
    size = resized_size(1000, 1000, contract, images)
    info = FrameInfo("", tuple(map(float, range(images))), size, size, float(images))
    longest = max(samples, key=lambda sample: len(template.ask(sample, info.duration)))
    length = len(build_prompt(encoder, template, longest, info).token_ids) + max_tokens
    if length > max_model_len:
        raise BadInput(
            f"{key} = {max_model_len}: a prompt of {images} frames and its completion can take "
            f"{length} tokens; raise it, or lower contract.frames or contract.max_pixels"
        )


def require_budget(
    encoder: ChatEncoder,
    template: PromptTemplate,
    examples: Iterable[tuple[Sample, FrameInfo]],
    max_tokens: int,
    token_budget: int,
) -> None:
    """Require that one forward can hold some prompt with one completion of full length, the smallest part of a group.

    `examples`: a decoded clip of each dataset file, which stands for the file, since only decoding gives the length of
    a prompt. One that fits is enough: the data may be mixed, and the run counts what does not fit (over_budget).
    """
    prompts = [len(build_prompt(encoder, template, sample, info).token_ids) for sample, info in examples]
    least = sequence_tokens(min(prompts), max_tokens)
    if least > token_budget:
        raise BadInput(
            f"learner.packing.token_budget = {token_budget}: a prompt of data.train with {min(prompts)} tokens and a "
            f"completion take {least} tokens; raise it, or lower sampling.max_tokens, contract.frames or "
            "contract.max_pixels"
        )


def require_fits(config: TrainConfig, gpu_gib: float | None) -> None:
    """Require that a config with GPUs fits the memory of GPUs of `gpu_gib` GiB, and its object store, as `ser plan`
    counts them. None: unknown, as on a head without GPUs; then it must fit the largest GPU that is known."""
    name, gpu = max(GPUS.items(), key=lambda item: item[1].memory_gib)
    if gpu_gib is not None:
        name, gpu = "this machine's GPUs", replace(gpu, memory_gib=gpu_gib)
    if problems := Planner(config, name, gpu).problems():
        raise BadInput("; ".join(problems))
