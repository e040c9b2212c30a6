"""What a folder of checkpoints holds: `step-000020`, DeepSpeed's shards of each rank, and `step-000020.json`, written
when they are whole. Without the record there is no checkpoint. Neither torch nor deepspeed is needed to read one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evidence.errors import BadInput


@dataclass(frozen=True)
class Saved:
    """A trained parameter: its shape, and its name in the shards."""

    shape: tuple[int, ...]
    key: str


@dataclass(frozen=True)
class Record:
    """model: the folder that training began from; it holds the weights that are not trained. base: its digest.
    parameters: those that are trained, by checkpoint name. average: whether their moving average is there, too.
    lora_scale: of an adapter, if that is what was trained. state: the driver's own, with `step`.
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
        """Raises BadInput for a file that is none."""
        try:
            data = json.loads(path.read_text())
            parameters = {name: Saved(tuple(shape), key) for name, (shape, key) in data.pop("parameters").items()}
            return cls(**data, parameters=parameters)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BadInput(f"{path}: not the record of a checkpoint ({error!r})") from None

    def write(self, path: Path) -> None:
        data = asdict(self) | {"parameters": {name: [s.shape, s.key] for name, s in self.parameters.items()}}
        part = path.with_name(f"{path.name}.part")
        part.write_text(json.dumps(data))
        os.replace(part, path)


def require_same_model(path: Path, saved: Record, here: Record) -> None:
    """Raises BadInput unless what was saved in `path` can go on as what is trained here, on however many ranks."""
    if saved.precision != here.precision:
        raise BadInput(f"{path}: saved with zero.precision = {saved.precision}, this run has {here.precision}")
    if saved.average != here.average:
        wrong = "with an average of the weights, this run keeps none" if saved.average else "without an average of them"
        raise BadInput(f"{path}: saved {wrong}; set zero.ema as it was")
    if saved.lora_scale != here.lora_scale:
        scales = [f"{r.lora_scale:g}" if r.lora_scale else "no adapter" for r in (saved, here)]
        raise BadInput(f"{path}: saved with a policy.lora of alpha / rank = {scales[0]}, this run has {scales[1]}")
    for name in [*saved.parameters, *here.parameters]:
        there, own = (f"{list(r.parameters[name].shape)}" if name in r.parameters else "" for r in (saved, here))
        if there != own:
            raise BadInput(
                f"{path}: saved of another model or adapter: {name} is {there or 'not trained'} there, and "
                f"{own or 'not trained'} here"
            )
    if saved.base != here.base:
        raise BadInput(f"{path}: training began from another model than lies in {here.model} now")


def require_whole(path: Path, saved: Record) -> None:
    """Raises BadInput unless each rank's shard is there."""
    found = len(list(path.with_suffix("").glob("*_optim_states.pt")))
    if found != saved.ranks:
        raise BadInput(f"{path.with_suffix('')}: {saved.ranks} ranks saved it, and the shards of {found} are there")


def checkpoints(folder: Path) -> list[Path]:
    """The records of whole checkpoints, oldest first."""
    return sorted(folder.glob("step-*.json"))


def remove_checkpoint(record: Path) -> None:
    """The record first, so that what is left of an interrupted removal is no checkpoint."""
    record.unlink(missing_ok=True)
    for left in (record.with_suffix(""), *record.parent.glob(f"{record.stem}.*")):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink(missing_ok=True)


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints."""
    for record in checkpoints(folder)[:-keep]:
        remove_checkpoint(record)


def universal(record: Path) -> Path:
    """Where a checkpoint's shards lie once they are brought into a form that any number of ranks can read."""
    return record.with_suffix(".universal")
