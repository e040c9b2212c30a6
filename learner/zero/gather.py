"""Gathers weights out of ZeRO-3 in buckets of whole layers, sized by `ds_numel` (the `numel()` of a partitioned
parameter is 0), and copies them out inside the gather (promise 7). The weights of a replicated vision tower take the
same path, without a gather."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import torch
from deepspeed.runtime.zero.partition_parameters import GatheredParameters


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


def gather_buckets(
    parameters: dict[str, torch.nn.Parameter], rank: int, world: int, limit: int, layer: str
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yield (b, {name: whole array}) for this rank's buckets: bucket b belongs to rank b mod `world`.

    Every rank must exhaust the generator, since each gather is collective. bfloat16 arrays are viewed as uint16.
    """
    sizes = {name: whole_numel(p) * p.element_size() for name, p in parameters.items()}
    for index, names in enumerate(layer_buckets(sizes, limit, layer)):
        mine = index % world == rank
        with GatheredParameters([parameters[n] for n in names], modifier_rank=None):
            arrays = {name: _copy_out(parameters[name]) for name in names} if mine else {}
        if mine:
            yield index, arrays


def _copy_out(parameter: torch.nn.Parameter) -> np.ndarray:
    tensor = parameter.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.view(torch.uint16)
    return tensor.numpy().copy()
