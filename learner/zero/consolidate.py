"""Assembles the whole model of a checkpoint from its files, without running the ranks that wrote them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
from transformers import AutoModelForImageTextToText
from transformers.utils.logging import disable_progress_bar

from evidence.errors import BadInput
from evidence.lora_names import A, B
from learner.checkpoints import Record, Saved
from learner.model.lora import merge
from learner.zero.average import read_average


class WholeModel:
    """The model of a checkpoint: trained weights in float32 from the optimizer's master weights, or their moving
    average; all others from the folder that training began from, in the precision of training. Raises BadInput if that
    folder holds another model now."""

    def __init__(self, record: Path, saved: Record, average: bool):
        self.shards, self.saved, self.average = record.with_suffix(""), saved, average
        disable_progress_bar()  # `ser export` shows its own
        model = AutoModelForImageTextToText.from_pretrained(saved.model, dtype=getattr(torch, saved.precision))
        self.base = {name: p.detach() for name, p in model.named_parameters()}
        for name, shape in self._changed().items():
            here = list(self.base[name].shape) if name in self.base else "missing"
            if here != list(shape):
                raise BadInput(f"{saved.model}: {name} is {here} here, and {list(shape)} in {record}")

    @property
    def numel(self) -> int:
        return sum(tensor.numel() for tensor in self.base.values())

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield (checkpoint name, tensor), tied tensors once, adapters merged. Of the trained tensors only one is in
        memory at a time, or all adapters if those were trained."""
        read = read_average if self.average else _read_master
        trained = read(self.shards, self.saved.ranks, self.saved.parameters)
        yield from trained if self.saved.lora_scale is None else self._merged(dict(trained), self.saved.lora_scale)
        changed = self._changed()
        yield from ((name, tensor) for name, tensor in self.base.items() if name not in changed)

    def _changed(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the base model's tensors that training changed, by checkpoint name."""
        shapes = {name: parameter.shape for name, parameter in self.saved.parameters.items()}
        if self.saved.lora_scale is None:
            return shapes
        return {f"{x}.weight": (shapes[f"{x}.{B}"][0], shapes[f"{x}.{A}"][1]) for x in _layers(shapes)}

    def _merged(self, adapters: Mapping[str, torch.Tensor], scale: float) -> Iterator[tuple[str, torch.Tensor]]:
        for layer in _layers(adapters):
            parts = (f"{layer}.{A}", f"{layer}.{B}")
            tensors = {f"{layer}.weight": self.base[f"{layer}.weight"]} | {name: adapters[name] for name in parts}
            yield from merge(tensors, {layer: scale}).items()


def _layers(names: Iterable[str]) -> list[str]:
    """The layers that have an adapter among `names`."""
    return sorted(name.removesuffix(f".{B}") for name in names if name.endswith(f".{B}"))


def _read_master(shards: Path, ranks: int, parameters: Mapping[str, Saved]) -> Iterator[tuple[str, torch.Tensor]]:
    # DeepSpeed prints progress bars of its own.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        master = get_fp32_state_dict_from_zero_checkpoint(
            str(shards.parent), shards.name, exclude_frozen_parameters=True, lazy_mode=True
        )
    for name, parameter in parameters.items():
        yield name, master[parameter.key].contiguous()
