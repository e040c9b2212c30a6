"""A moving average of the trained weights, kept in shards: each rank averages its own part of the master weights, in
float32, without communication between ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import deepspeed
import torch

from learner.checkpoints import Saved
from learner.zero.background_writer import BackgroundWriter


class WeightAverage:
    """The average starts equal to the weights; each `update` sets it to decay * average + (1 - decay) * weights."""

    def __init__(self, engine: deepspeed.DeepSpeedEngine, decay: float):
        self.engine, self.decay = engine, decay
        self.flat = [weights.detach().clone() for weights in self._weights()]

    @torch.no_grad()
    def update(self) -> None:
        for average, weights in zip(self.flat, self._weights(), strict=True):
            average.lerp_(weights, 1 - self.decay)

    def save(self, writer: BackgroundWriter, shards: Path, rank: int) -> None:
        """Let `writer` write this rank's part into the checkpoint folder `shards`. Call it on every rank."""
        writer.save({key: part for key, part, _ in self._parts()}, str(_file(shards, rank)))

    @torch.no_grad()
    def load(self, shards: Path, saved_ranks: int, rank: int) -> None:
        """Load this rank's part of an average that any number of ranks saved."""
        saved = _read(shards, saved_ranks)
        for key, part, numel in self._parts():
            start = rank * len(part)
            values = torch.cat([shard[key] for shard in saved])[:numel][start : start + len(part)]
            part[: len(values)].copy_(values)  # the rest of `part` is padding

    def _weights(self) -> list[torch.Tensor]:
        return self.engine.optimizer.fp32_partitioned_groups_flat

    def _parts(self) -> Iterator[tuple[str, torch.Tensor, int]]:
        """(key in the shards, this rank's part, number of elements on all ranks) of each parameter."""
        for flat, parameters in zip(self.flat, self.engine.optimizer.fp16_groups, strict=True):
            offset = 0
            for parameter in parameters:
                part = flat.narrow(0, offset, parameter.partition_numel())
                offset += len(part)
                yield self.engine.param_names[parameter], part, parameter.ds_numel


def read_average(shards: Path, ranks: int, parameters: Mapping[str, Saved]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (checkpoint name, whole average in float32) of each parameter that `ranks` ranks saved in `shards`."""
    saved = _read(shards, ranks)
    for name, (shape, key) in ((name, (torch.Size(s.shape), s.key)) for name, s in parameters.items()):
        yield name, torch.cat([shard[key] for shard in saved])[: shape.numel()].view(shape)


def _file(shards: Path, rank: int) -> Path:
    return shards / f"average-{rank:05d}.pt"


def _read(shards: Path, ranks: int) -> list[dict[str, torch.Tensor]]:
    """The parts of all ranks, memory-mapped."""
    return [torch.load(_file(shards, rank), mmap=True, weights_only=True) for rank in range(ranks)]
