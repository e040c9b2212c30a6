"""The whole model of a checkpoint, put together from its files without the ranks that wrote them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
from transformers import AutoModelForImageTextToText

from evidence.errors import BadInput
from learner.checkpoints import Record, Saved
from learner.zero.average import read_average


class WholeModel:
    """Trained weights in float32 as their optimizer has them, or their average; the others from the folder that
    training began from, in its precision. Raises BadInput if that is another model now."""

    def __init__(self, record: Path, saved: Record, average: bool):
        self.shards, self.saved, self.average = record.with_suffix(""), saved, average
        model = AutoModelForImageTextToText.from_pretrained(saved.model, dtype=getattr(torch, saved.precision))
        self.base = {name: p.detach() for name, p in model.named_parameters()}
        for name, parameter in saved.parameters.items():
            here = list(self.base[name].shape) if name in self.base else "missing"
            if here != list(parameter.shape):
                raise BadInput(f"{saved.model}: {name} is {here} here, and {list(parameter.shape)} in {record}")

    @property
    def numel(self) -> int:
        return sum(tensor.numel() for tensor in self.base.values())

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Each by its checkpoint name, tied ones once; only one is in memory at a time of those that were trained."""
        read = read_average if self.average else _read_master
        yield from read(self.shards, self.saved.ranks, self.saved.parameters)
        yield from ((name, tensor) for name, tensor in self.base.items() if name not in self.saved.parameters)


def _read_master(shards: Path, ranks: int, parameters: Mapping[str, Saved]) -> Iterator[tuple[str, torch.Tensor]]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # DeepSpeed's own bars
        master = get_fp32_state_dict_from_zero_checkpoint(
            str(shards.parent), shards.name, exclude_frozen_parameters=True, lazy_mode=True
        )
    for name, parameter in parameters.items():
        yield name, master[parameter.key].contiguous()
