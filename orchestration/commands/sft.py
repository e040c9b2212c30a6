"""`ser sft`: supervised warm start on the ZeRO-3 ranks, resumable.

Guarantees: resumed, it continues from the last checkpoint with the batches of an uninterrupted run; the exported model
appears only when training is done.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import ray

from evidence.config_checks import MOST, MOST_SEED, require, require_above_zero, require_least, require_one_of
from evidence.digests import file_digest
from evidence.errors import BadInput, Interrupted, RunFailed
from evidence.files import whole_folder
from evidence.limits import Limits
from evidence.sampling import SamplingContract, resolved
from evidence.supervision import actor_class
from learner.checkpoints import NO, CheckpointConfig, Record, require_resume
from learner.model.tiny import TinySpec, create_tiny_model
from learner.schedule import Schedule
from learner.settings import DTYPES, PackingConfig, PolicyConfig, RankConfig, ZeroConfig
from orchestration.commands.sft_rows import RowsConfig, RowSource, RowsReport, by_clip
from orchestration.config import load_config
from orchestration.interruption import Interruption, saved_line
from orchestration.loop.skipped_steps import SkippedSteps, shortened_list
from orchestration.machine import require_memory
from orchestration.preflight import (
    require_crop_tiles,
    require_folder,
    require_frames_fit,
    require_tiles,
    weight_bytes,
)
from orchestration.reporting.awaiting import awaiting
from orchestration.reporting.metrics import Progress, RunLog
from orchestration.resuming import (
    CHECKPOINTS,
    DECIDES_PIXELS,
    drop_later,
    find_checkpoint,
    require_same_config,
    require_same_data,
    require_unchanged,
)
from orchestration.run_directory import CONFIG, claimed, run_directory
from orchestration.settings import WandbMode
from orchestration.streams import say
from orchestration.supervision.checkpoint_writer import CheckpointWriter
from orchestration.supervision.cluster import start_ray
from orchestration.supervision.learner_gang import LearnerGang
from orchestration.supervision.waiting import results
from referee.verification import VerificationConfig
from rollout.dataset.mix import DataShare
from rollout.frames.config import FramesConfig
from rollout.prompt import ChatEncoder
from rollout.template import PromptTemplate

logger = logging.getLogger(__name__)

TASKS = ("answer", "verify")
# Keys whose value may change when a run is resumed: the weights depend on none of them.
MAY_CHANGE = (
    *("run_dir", "resume", "out", "dtype", "stop_after", "checkpoint", "max_skipped", "wandb"),
    "ranks",  # the same rows, split differently: only the rounding of sums changes
    *("gpus_per_rank", "frames", "frames_gib", "object_store_gib", "limits"),
)
AHEAD = 3  # steps whose rows are made in advance while the ranks train
MAX_LEFT_OUT_SHARE = 0.5  # of the drawn clips, as for the groups of `ser train`: mostly broken data is a mistake
CALLS = 3  # calls of a decoding process for one file: digest, first decoder, second decoder
LONGEST_KEYS = f"start_s, and {CALLS} times frames.timeout_s for each of a step's clips"  # limit the making of rows


class TooManyLeftOut(RunFailed):
    """More than MAX_LEFT_OUT_SHARE of the drawn clips were left out."""


@dataclass
class Stage:
    """One stage of a curriculum. data: one dataset file, or several with their weights. steps: of the optimizer."""

    data: list[DataShare]
    steps: int

    def __post_init__(self) -> None:
        require(bool(self.data), "data", self.data, "at least one dataset file")
        require_least(self, 1, "steps")


@dataclass
class SftConfig:
    """One supervised run.

    stages: of the curriculum, in their order. run_dir: the folder of everything that the run writes.
    model: folder to start from; null creates a random model of the sizes in `tiny`, with a tokenizer trained on the
    data's text.
    task: `answer` (a policy, on the samples' reasoning) or `verify` (a referee, on claims made from boxes).
    out: folder to which the trained model is exported. dtype: of the exported weights.
    clips: number drawn per step, each with all questions that show the same frames; claims: number verified per clip.
    ranks: number of ZeRO-3 processes. gpus_per_rank: 0 runs them on the CPU, 1 gives each a GPU.
    object_store_gib: Ray's shared memory. frames_gib: budget for decoded frames within it.
    max_skipped: the run stops after this many consecutive steps whose loss or gradient is not finite.
    limits: how long each kind of work may take.
    checkpoint, resume, wandb: as in `ser train`. seed: of the order of the data and of the random model.
    stop_after: ends the run early after this many steps, with the same learning-rate schedule; null trains all stages.
    """

    stages: list[Stage] = field(default_factory=list)
    task: str = "answer"
    model: str | None = None
    tiny: TinySpec = field(default_factory=TinySpec)
    run_dir: str = "runs/sft"
    out: str = "runs/sft/model"
    dtype: str = "bfloat16"
    contract: SamplingContract = field(default_factory=SamplingContract)
    frames: FramesConfig = field(default_factory=FramesConfig)
    template: PromptTemplate = field(default_factory=PromptTemplate)
    verification: VerificationConfig = field(default_factory=VerificationConfig)
    clips: int = 16
    claims: int = 8
    ranks: int = 2
    gpus_per_rank: float = 0.0
    packing: PackingConfig = field(default_factory=PackingConfig)
    schedule: Schedule = field(default_factory=lambda: Schedule(lr=1e-3, warmup=100, floor=0.1))
    max_skipped: int = 3
    stop_after: int | None = None
    policy: PolicyConfig = field(default_factory=lambda: PolicyConfig(train_vision=True))
    zero: ZeroConfig = field(default_factory=ZeroConfig)
    limits: Limits = field(default_factory=Limits)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    resume: str = NO
    object_store_gib: float = 1.0
    frames_gib: float = 0.5
    seed: int = 0
    wandb: WandbMode = "offline"

    def __post_init__(self) -> None:
        best = self.checkpoint.best
        require(best is None, "checkpoint.best", best, "null: `ser sft` evaluates nothing while it trains")
        require(bool(self.stages), "stages", self.stages, "at least one {data, steps}")
        require_one_of(self, TASKS, "task")
        require_one_of(self, DTYPES, "dtype")
        require_least(self, 1, "clips", "claims", "ranks", "max_skipped")
        require_resume(self.resume)
        require_least(self, 0, "seed", most=MOST_SEED)
        require(self.gpus_per_rank in (0, 1), "gpus_per_rank", self.gpus_per_rank, "0 or 1")
        stop = self.stop_after
        require(stop is None or 1 <= stop <= MOST, "stop_after", stop, "1 or more, or null for all stages")
        require(self.ranks <= self.clips, "ranks", self.ranks, f"at most clips ({self.clips})")
        require_above_zero(self, "frames_gib", "object_store_gib")
        wanted = f"below object_store_gib ({self.object_store_gib})"
        require(self.frames_gib < self.object_store_gib, "frames_gib", self.frames_gib, wanted)

    @property
    def planned(self) -> int:
        """Steps of all stages, over which the learning-rate schedule runs."""
        return sum(stage.steps for stage in self.stages)

    @property
    def steps(self) -> int:
        """Steps that this run trains."""
        return min(self.planned, self.stop_after or self.planned)


def locate(step: int, stages: list[Stage]) -> tuple[int, int]:
    """(stage, step within the stage) of a step of the run. Raises IndexError after the last stage."""
    for index, stage in enumerate(stages):
        if step < stage.steps:
            return index, step
        step -= stage.steps
    raise IndexError(f"step {step} is after the last stage")


def initial_model(config: SftConfig, run_dir: Path) -> str:
    """The model folder to start from; a random model is created if the config names none."""
    if config.model:
        return config.model
    folder = run_dir / "initial"
    if not folder.is_dir():
        samples = [sample for share in config.stages[0].data for sample in share.read()][:20_000]
        corpus = [f"{s.question} {s.answer} {s.reasoning}" for s in samples]
        wording = config.verification.wording
        template = [config.template.frame, config.template.question, *config.template.tasks.values()]
        corpus += [*template, wording.relevance, wording.localization] * 1000
        with whole_folder(folder) as part:
            create_tiny_model(part, config.tiny, corpus, config.seed)
    return str(folder)


def require_own_out(config: SftConfig, run_dir: Path) -> None:
    """Raises BadInput if the exported model would replace anything but this run's own model."""
    out, file = Path(os.path.abspath(require_folder("out", config.out))), run_dir / "config.yaml"
    used = {run_dir / name for name in ("checkpoints", "initial", "wandb")}
    if out in (run_dir, *run_dir.parents) or used & {out, *out.parents}:
        raise BadInput(f"out = {config.out}: holds files of the run; name a separate folder, such as {run_dir}/model")
    if run_dir in out.parents or not (out.is_dir() and any(out.iterdir())):
        return
    if not file.is_file() or Path(os.path.abspath(load_config(SftConfig, file).out)) != out:
        raise BadInput(f"out = {config.out}: holds files that the model would replace; name a new folder")


def main(config: SftConfig) -> None:
    """Train, or continue, one supervised run and export its model. Raises BadInput and RunFailed."""
    run_dir = run_directory(config.run_dir)
    record = find_checkpoint(run_dir, config.resume)
    tile = ChatEncoder(config.model).tile if config.model else config.tiny.patch * config.tiny.merge
    contract = resolved(config.contract, tile)
    config = replace(config, contract=contract)
    require_own_out(config, run_dir)
    # All checks come before anything is written.
    require_tiles(tile, config.contract, "model")
    if config.task == "verify":
        require_crop_tiles(tile, config.verification)
    for stage in config.stages:
        clips = by_clip(stage.data, config.task, config.contract, config.seed)
        samples = [sample for clip in clips.items for sample in clip]
        require_frames_fit(config.contract, samples, config.clips, "frames_gib", config.frames_gib)
    digests = {share.path: file_digest(Path(share.path)) for stage in config.stages for share in stage.data}
    state: Mapping[str, Any] = {"step": 0}
    if record is not None:
        state = Record.read(record).state
        changes = require_same_config(run_dir, config, MAY_CHANGE, DECIDES_PIXELS)
        require_same_data(state["data"], digests)
        if not changes and state["step"] == config.steps and Path(config.out, "config.json").is_file():
            print(f"{config.out}: is there, after {config.steps} steps")
            return
        for change in changes:
            say(f"resumed with {change}")
    frames = config.frames
    if frames.cache_dir:
        frames = replace(frames, cache_dir=str(require_folder("frames.cache_dir", frames.cache_dir)))
    if "RAY_ADDRESS" not in os.environ:
        require_memory(config.object_store_gib)
    run_dir.mkdir(parents=True, exist_ok=True)
    model = initial_model(config, run_dir)
    rows = RowsConfig(
        task=config.task,
        clips=config.clips,
        claims=config.claims,
        packing=config.packing,
        contract=config.contract,
        template=config.template,
        verification=config.verification,
        frames=frames,
        frames_bytes=int(config.frames_gib * 2**30),
    )
    interruption = Interruption()
    ray = start_ray(config.object_store_gib, config.ranks * config.gpus_per_rank, start_s=config.limits.start_s)
    folder = claimed(run_dir, config, again=(run_dir / CONFIG).exists())
    with interruption.listening(), ray, folder:
        require_unchanged(run_dir, config.resume, record)
        data = [[_absolute(share) for share in stage.data] for stage in config.stages]
        source = actor_class(RowSource).remote(model, rows, data, config.ranks, config.seed)
        rank_config = RankConfig(
            model=model,
            banned_ids=ChatEncoder(model).banned_ids,
            policy=config.policy,
            zero=config.zero,
            limits=config.limits.for_weights(weight_bytes(model)),
        )
        with awaiting("learner ranks"):
            gang = LearnerGang(rank_config, config.ranks, config.gpus_per_rank)
        if record is not None:
            gang.load(record)
        drop_later(run_dir, state["step"])
        left_out = _train(config, run_dir, gang, source, {**state, "data": digests}, interruption)
        gang.export(Path(config.out).absolute(), config.dtype)
        gang.stop()
    trained = f"{gang.trained_parameters:,} parameters after {config.steps} steps"
    print(f"{config.out}: {trained}; {len(left_out)} clips left out")


def _absolute(share: DataShare) -> DataShare:
    """The share with absolute paths, since the row source's process has another working directory."""
    paths: dict[str, Any] = share.absolute
    return replace(share, **paths)


def require_few_left_out(left_out: int, drawn: int, per_step: int) -> None:
    """Raises TooManyLeftOut if more clips were left out than MAX_LEFT_OUT_SHARE of those drawn plus one step's."""
    if left_out > MAX_LEFT_OUT_SHARE * drawn + per_step:
        raise TooManyLeftOut(
            f"{left_out} of the {drawn} clips drawn could not be read or did not fit, for the reasons logged above; "
            "`ser data check FILE --media` lists all unreadable clips of a file"
        )


def _train(
    config: SftConfig,
    run_dir: Path,
    gang: LearnerGang,
    source: ray.actor.ActorHandle,
    state: Mapping[str, Any],
    interruption: Interruption,
) -> set[str]:
    """Train from the `state` of a checkpoint on. Returns the paths of the clips that were left out."""
    make: Any = source.micro_batches.options(num_returns=config.ranks + 1)
    longest_s = config.limits.start_s + CALLS * config.clips * config.frames.timeout_s
    start = state["step"]
    left_out: set[str] = set()
    left_out_draws = 0
    skips = SkippedSteps(config.max_skipped, *state.get("skipped", ()))
    saves = CheckpointWriter(gang, run_dir / CHECKPOINTS, config.checkpoint, start or None)

    def rows_of(step: int) -> list[ray.ObjectRef]:
        return make.remote(*locate(step, config.stages))

    waiting = deque(rows_of(step) for step in range(start, min(start + AHEAD, config.steps)))
    log = RunLog(run_dir, asdict(config), config.wandb, start, state.get("seconds", 0.0), state.get("wandb_id"))
    with log, Progress(config.steps, start) as progress, interruption.can_save(lambda: None):
        for step in range(start, config.steps):
            *parts, report_ref = waiting.popleft()
            if step + AHEAD < config.steps:
                waiting.append(rows_of(step + AHEAD))
            rate = config.schedule.rate(step, config.planned)
            report: RowsReport
            (report,) = results([report_ref], ["the row source"], "making rows", longest_s, LONGEST_KEYS)
            for path, reason in report.unreadable:
                logger.warning("step %d: %s: %s", step + 1, path, reason)
            for path in report.over_budget:
                logger.warning("step %d: %s: a sequence exceeds packing.token_budget", step + 1, path)
            left_out |= {*report.over_budget, *(path for path, _ in report.unreadable)}
            left_out_draws += len(report.unreadable) + len(report.over_budget)
            require_few_left_out(left_out_draws, (step + 1 - start) * config.clips, config.clips)
            metrics = gang.train_step(parts, rate)
            skips.count(metrics, f"step {step + 1}, clips {shortened_list(report.clips)}")
            frames = {f"frames/{name}": n for name, n in report.frames.items()}
            counts = {"clips_left_out": len(report.unreadable), "clips_over_budget": len(report.over_budget)}
            log.log(step + 1, {**metrics, "learning_rate": rate, **counts, **frames})
            progress.update(step + 1, f"loss {metrics['loss']:.4f}  {metrics['seconds']:.2f} s")
            saves.poll()
            now = {"data": state["data"], "skipped": [skips.total, skips.in_a_row]}
            now |= {"seconds": log.seconds, "wandb_id": log.wandb_id}
            if saves.due(step + 1, step + 1 == config.steps) or interruption.requested:
                log.sync()
                saves.begin(step + 1, now)
            if interruption.requested:
                saves.finish()
                saves.require(step + 1)
                raise Interrupted(f"{interruption.requested}: {saved_line(run_dir, step + 1)}")
        saves.finish()
    return left_out
