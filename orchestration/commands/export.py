"""`ser export`: writes a checkpoint as a Hugging Face folder, without starting any rank."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from evidence.digests import model_digest
from evidence.errors import BadInput
from learner.checkpoints import Record, checkpoints, require_whole
from orchestration.preflight import require_folder


def main(source: Path, step: int | None, out: Path, dtype: str, average: bool) -> None:
    """Write the weights to the new folder `out`. Raises BadInput, before anything is written, if `source` is not a
    checkpoint or `out` is in use. `average`: the moving average of the weights instead of the last ones."""
    record = find_record(source, step)
    saved = Record.read(record)
    require_whole(record, saved)
    if average and not saved.average:
        raise BadInput(f"--ema: {record.with_suffix('')} holds no average of the weights; train with zero.ema")
    if not Path(saved.model).is_dir():
        raise BadInput(f"{record}: training began from {saved.model}, which does not exist; restore the model")
    out = require_folder("--out", out)
    if out.is_dir() and any(out.iterdir()):
        raise BadInput(f"--out {out}: already holds files; name a new folder")
    if model_digest(saved.model) != saved.base:
        raise BadInput(f"{record}: training began from another model than {saved.model} holds now; restore it")
    _export(record, saved, out, dtype, average)
    print(f"{out}: {'average of the weights' if average else 'weights'} of {record.with_suffix('')} in {dtype}")


def find_record(source: Path, step: int | None) -> Path:
    """The record of a checkpoint. `source`: the checkpoint itself, a run's folder or a folder of checkpoints; of the
    latter two, `step` (None: the newest) is taken. Raises BadInput."""
    if not source.is_dir():
        raise BadInput(f"{source}: no such folder")
    own = source.absolute().with_suffix(".json")
    records = [own] if own in checkpoints(own.parent) else checkpoints(source / "checkpoints") or checkpoints(source)
    if not records:
        raise BadInput(f"{source}: no checkpoint; name a run's folder or one of its checkpoints/step-…")
    if step is None:
        return records[-1]
    steps = {int(record.stem.removeprefix("step-")): record for record in records}
    if step not in steps:
        raise BadInput(f"--step {step}: {source} holds {', '.join(map(str, steps))}")
    return steps[step]


def _export(record: Path, saved: Record, out: Path, dtype: str, average: bool) -> None:
    # Imported here since they take seconds to load and bad input is reported without them.
    import torch

    from learner.model.hugging_face import save_hugging_face
    from learner.zero.consolidate import WholeModel
    from rollout.prompt import ChatEncoder

    ChatEncoder(saved.model)  # raises BadInput for files that no engine could load from the exported folder
    model = WholeModel(record, saved, average)
    torch_dtype = getattr(torch, dtype)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("weights", total=model.numel * torch_dtype.itemsize)

        def converted() -> Iterator[tuple[str, torch.Tensor]]:
            for name, tensor in model.tensors():
                yield name, tensor.to(torch_dtype)
                progress.advance(bar, tensor.numel() * torch_dtype.itemsize)

        save_hugging_face(converted(), out, Path(saved.model))
