"""The files of a checkpoint: `step-000020/`, the DeepSpeed shards of each rank, and the record `step-000020.json`,
written once the shards are complete. Shards without a record are not a checkpoint. Reading a record needs neither torch
nor deepspeed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evidence.errors import BadInput
from evidence.files import write_text


@dataclass(frozen=True)
class Saved:
    """A trained parameter: its shape, and its name in the shards."""

    shape: tuple[int, ...]
    key: str


@dataclass(frozen=True)
class Record:
    """model: the folder that training began from, which holds the weights that are not trained. base: its digest.
    parameters: the trained ones, by checkpoint name. average: whether their moving average is saved, too.
    lora_scale: alpha / rank if an adapter was trained. state: the driver's state, with `step`.
    """

    model: str
    base: str
    ranks: int
    precision: str
    average: bool
    lora_scale: float | None
    parameters: Mapping[str, Saved]
    state: Mapping[str, Any]

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
    """Raises BadInput unless the shards of all ranks exist."""
    shards = len(list(path.with_suffix("").glob("*_optim_states.pt")))
    if shards != saved.ranks:
        raise BadInput(f"{path.with_suffix('')}: saved by {saved.ranks} ranks, but holds the shards of {shards}")


def checkpoints(folder: Path) -> list[Path]:
    """The records of complete checkpoints, oldest first."""
    return sorted(folder.glob("step-*.json"))


def remove_checkpoint(record: Path) -> None:
    """Remove a checkpoint. The record goes first, so that an interrupted removal leaves no checkpoint."""
    record.unlink(missing_ok=True)
    for part in (record.with_suffix(""), *record.parent.glob(f"{record.stem}.*")):
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink(missing_ok=True)


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints."""
    for record in checkpoints(folder)[:-keep]:
        remove_checkpoint(record)


def universal(record: Path) -> Path:
    """Folder of a checkpoint's shards in the form for any number of ranks (learner/zero/checkpoint.convert)."""
    return record.with_suffix(".universal")
