"""Gathers weights out of ZeRO-3 in buckets of whole layers, sized by `ds_numel` (the `numel()` of a partitioned
parameter is 0), and copies them out inside the gather (promise 7). The weights of a replicated vision tower take the
same path, without a gather.

R ranks gather R buckets at once, and each copies out its own: what they do with it between two gathers they do at the
same time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from deepspeed.runtime.zero.partition_parameters import GatheredParameters

from evidence.manifest import Packed


def replicated(module: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Replace the sharded parameters of `module` by whole, frozen copies, gathered one by one. Every rank must call
    it."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            with GatheredParameters([parameter], modifier_rank=None):
                whole = parameter.detach().to(device, copy=True)
            setattr(part, name, torch.nn.Parameter(whole, requires_grad=False))
    return module.to(device)


def whole_numel(parameter: torch.nn.Parameter) -> int:
    """The number of elements of a parameter, sharded or not."""
    return parameter.ds_numel if hasattr(parameter, "ds_numel") else parameter.numel()


def layer_buckets(sizes: dict[str, int], limit: int, layer: str) -> list[list[str]]:
    """Group names by whole layers into buckets of at most `limit` bytes, or of one layer if that is larger.

    layer: the pattern of a layer's prefix, as Family.layer."""
    layers: dict[str, list[str]] = {}
    for name in sizes:
        match = re.match(layer, name)
        layers.setdefault(match[1] if match else name.rsplit(".", 1)[0], []).append(name)
    buckets: list[list[str]] = []
    free = 0
    for names in layers.values():
        size = sum(sizes[n] for n in names)
        if not buckets or size > free:
            buckets.append([])
            free = limit
        buckets[-1] += names
        free -= size
    return buckets


class Gathered(NamedTuple):
    """One of this rank's buckets, copied out: its number among `total` buckets, and its tensors."""

    number: int
    total: int
    packed: Packed


def gather_buckets(
    parameters: dict[str, torch.nn.Parameter],
    constants: Mapping[str, np.ndarray],
    rank: int,
    world: int,
    limit: int,
    layer: str,
) -> Iterator[Gathered]:
    """Yield this rank's buckets: bucket b belongs to rank b mod `world`. The last one holds `constants`, arrays that
    are no parameters, if there are any.

    Every rank must exhaust the generator, since each gather is collective.
    """
    sizes = {name: whole_numel(p) * p.element_size() for name, p in parameters.items()}
    buckets = layer_buckets(sizes, limit, layer)
    total = len(buckets) + bool(constants)
    for first in range(0, len(buckets), world):
        together = buckets[first : first + world]
        with GatheredParameters([parameters[name] for names in together for name in names], modifier_rank=None):
            packed = _copied_out({n: parameters[n] for n in together[rank]}) if rank < len(together) else None
        if packed is not None:
            yield Gathered(first + rank, total, packed)
    if constants and len(buckets) % world == rank:
        yield Gathered(len(buckets), total, Packed.of(constants))


def _copied_out(parameters: dict[str, torch.nn.Parameter]) -> Packed:
    """The whole tensors of gathered parameters. From a GPU they go straight into pinned memory, which torch reuses."""
    on_gpu = any(parameter.is_cuda for parameter in parameters.values())

    def pinned(nbytes: int) -> np.ndarray:
        return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True).numpy()

    tensors = {name: (tuple(p.shape), str(p.dtype).removeprefix("torch.")) for name, p in parameters.items()}
    packed = Packed.room_for(tensors, pinned if on_gpu else None)
    for name, view in packed.views.items():
        whole = parameters[name].detach()
        torch.from_numpy(view).view(whole.dtype).copy_(whole, non_blocking=True)
    if on_gpu:
        torch.cuda.synchronize()
    return packed
