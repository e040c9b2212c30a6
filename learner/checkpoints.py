"""The files of a checkpoint: `step-000020/`, the DeepSpeed shards of each rank, and the record `step-000020.json`,
written once the shards are complete, with their sizes. Shards without a record, or of other sizes, are not a
checkpoint. Reading a record needs neither torch nor deepspeed.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from evidence.config_checks import require_above_zero, require_least
from evidence.errors import BadInput
from evidence.files import write_text

log = logging.getLogger(__name__)

# Values of `resume` besides the step of a checkpoint.
NO, AUTO = "no", "auto"


@dataclass(frozen=True)
class CheckpointConfig:
    """When a run saves a checkpoint, and which ones it keeps (docs/checkpoints.md).

    every: after so many steps. minutes: once so many minutes have passed since the last one. null switches a rule off;
    with either, a checkpoint is also saved after the last step.
    keep: the newest so many. keep_every: of the older ones, the first in every so many steps; null keeps none.
    best: the metric of eval.every by which the best checkpoint is kept, too, such as heldout/reward; a checkpoint is
        then saved at every evaluation. null keeps none. best_is: the highest or the lowest value.
    """

    every: int | None = None
    minutes: float | None = 15.0
    keep: int = 2
    keep_every: int | None = None
    best: str | None = None
    best_is: Literal["highest", "lowest"] = "highest"

    def __post_init__(self) -> None:
        require_least(self, 1, *(key for key in ("every", "keep", "keep_every") if getattr(self, key) is not None))
        if self.minutes is not None:
            require_above_zero(self, "minutes")

    @property
    def wanted(self) -> bool:
        """Whether the run saves checkpoints by itself."""
        return (self.every, self.minutes) != (None, None)


def require_resume(resume: str) -> None:
    """Raises BadInput unless `resume` is one of its three forms."""
    if resume not in (NO, AUTO) and not resume.isdecimal():
        raise BadInput(f"resume = {resume}: must be {NO}, {AUTO}, or the step of a checkpoint")


@dataclass(frozen=True)
class Saved:
    """A trained parameter: its shape, and its name in the shards."""

    shape: tuple[int, ...]
    key: str


@dataclass(frozen=True)
class Record:
    """model: the folder that training began from, which holds the weights that are not trained. base: its digest.
    parameters: the trained ones, by checkpoint name. average: whether their moving average is saved, too.
    lora_scale: alpha / rank if an adapter was trained. state: the driver's state, with `step`. files: the size in bytes
    of each of the shards, by name.
    """

    model: str
    base: str
    ranks: int
    precision: str
    average: bool
    lora_scale: float | None
    parameters: Mapping[str, Saved]
    state: Mapping[str, Any]
    files: Mapping[str, int]

    @classmethod
    def read(cls, path: Path) -> Record:
        """Raises BadInput if the file is not a record."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            parameters = {name: Saved(tuple(shape), key) for name, (shape, key) in data.pop("parameters").items()}
            return cls(**data, parameters=parameters)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BadInput(f"{path}: not the record of a checkpoint ({error!r})") from None

    def write(self, path: Path) -> None:
        data = asdict(self) | {"parameters": {name: [s.shape, s.key] for name, s in self.parameters.items()}}
        write_text(path, json.dumps(data, allow_nan=False))


def require_same_model(path: Path, saved: Record, here: Record) -> None:
    """Raises BadInput unless the checkpoint `path` can be resumed by this run, on any number of ranks."""
    if saved.precision != here.precision:
        raise BadInput(f"{path}: saved with zero.precision = {saved.precision}, this run has {here.precision}")
    if saved.average != here.average:
        kept = "with a moving average of the weights, this run keeps none" if saved.average else "without one"
        raise BadInput(f"{path}: saved {kept}; set zero.ema as it was")
    if saved.lora_scale != here.lora_scale:
        scales = [f"{r.lora_scale:g}" if r.lora_scale else "no adapter" for r in (saved, here)]
        raise BadInput(f"{path}: saved with a policy.lora of alpha / rank = {scales[0]}, this run has {scales[1]}")
    for name in [*saved.parameters, *here.parameters]:
        shapes = [f"{list(r.parameters[name].shape)}" if name in r.parameters else "not trained" for r in (saved, here)]
        if shapes[0] != shapes[1]:
            raise BadInput(
                f"{path}: saved from another model or adapter: {name} is {shapes[0]} there, and {shapes[1]} here"
            )
    if saved.base != here.base:
        raise BadInput(f"{path}: training began from another model than {here.model} holds now")


def require_whole(path: Path, saved: Record) -> None:
    """Raises BadInput unless all shards exist with the sizes that were written."""
    for name, size in saved.files.items():
        shard = path.with_suffix("") / name
        found = shard.stat().st_size if shard.is_file() else None
        if found != size:
            is_now = "is missing" if found is None else f"holds {found:,} bytes"
            raise BadInput(f"{shard}: {is_now}, and held {size:,} when the checkpoint was written")


def record_of(folder: Path, step: int) -> Path:
    """The path of the record of a checkpoint in `folder`."""
    return folder / f"step-{step:06d}.json"


def step_of(record: Path) -> int:
    return int(record.stem.removeprefix("step-"))


def checkpoints(folder: Path) -> list[Path]:
    """The records of complete checkpoints, by step."""
    return sorted((path for path in folder.glob("step-*.json") if path.stem[5:].isdigit()), key=step_of)


def remove_checkpoint(record: Path) -> None:
    """Remove a checkpoint. The record goes first, so that an interrupted removal leaves no checkpoint."""
    record.unlink(missing_ok=True)
    for part in (record.with_suffix(""), *record.parent.glob(f"{record.stem}.*")):
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink(missing_ok=True)


def try_to_remove(record: Path) -> None:
    """Remove a checkpoint. A file that cannot be removed, as while another machine reads it over NFS, is left to
    `remove_unfinished` and costs a warning."""
    try:
        remove_checkpoint(record)
    except OSError as error:
        log.warning("%s: cannot be removed (%s)", error.filename or record, error.strerror)


def remove_unfinished(folder: Path) -> None:
    """Remove what is left of checkpoints whose writing or removal was cut short. Nothing may be writing there."""
    whole = {record.stem for record in checkpoints(folder)}
    for name in {path.name.partition(".")[0] for path in folder.glob("step-*")} - whole:
        if name.removeprefix("step-").isdigit():
            try_to_remove(folder / f"{name}.json")


def prune_checkpoints(folder: Path, config: CheckpointConfig, kept: Collection[int] = ()) -> None:
    """Remove the checkpoints that `config` does not keep, except for those of the steps `kept`."""
    kept_span = -1
    for record in checkpoints(folder)[: -config.keep]:
        if step_of(record) in kept:
            continue
        span = -1 if config.keep_every is None else step_of(record) // config.keep_every
        if span > kept_span:
            kept_span = span
        else:
            try_to_remove(record)


def universal(record: Path) -> Path:
    """Folder of a checkpoint's shards in the form for any number of ranks (learner/zero/checkpoint.convert)."""
    return record.with_suffix(".universal")
