"""Merges a published adapter into the base weights, which are read from the model's folder: W + scale B A.

Guarantee: the result consists of whole decoder layers, because vLLM reloads a layer whole or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open

from evidence.lora_names import SCALE, A, B


class AdapterMismatch(RuntimeError):
    """An adapter that is incomplete or does not match the base model."""


def is_adapter(names: frozenset[str]) -> bool:
    """Whether a weight set of these tensor names is an adapter."""
    return any(name.endswith(f".{SCALE}") for name in names)


def merged_layers(
    folder: Path,
    adapter: Mapping[str, torch.Tensor],
    canonical: Callable[[str], str],
    decoder_layer: re.Pattern[str],
    dtype: torch.dtype,
) -> list[tuple[str, torch.Tensor]]:
    """All tensors of each decoder layer that `adapter` changes, by their checkpoint names in the base's `folder`.

    adapter: X.lora_A [rank, in], X.lora_B [out, rank], X.lora_scale [] of linear layers X. canonical: maps the names
    that transformers uses in memory and in checkpoints to one name. decoder_layer: matches a decoder layer's prefix at
    the start of a canonical name. dtype: of merged tensors.
    Raises AdapterMismatch.
    """
    adapted = {canonical(f"{layer}.weight"): layer for layer in (name.rpartition(".")[0] for name in adapter)}
    wanted = {f"{layer}.{part}" for layer in adapted.values() for part in (A, B, SCALE)}
    if wanted != adapter.keys():
        differing = wanted ^ adapter.keys()
        raise AdapterMismatch(f"incomplete: {len(differing)} tensors are missing or unknown, such as {min(differing)}")
    touched = {match[0] for match in map(decoder_layer.match, adapted) if match}
    tensors = []
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as base:
            for name in base.keys():  # noqa: SIM118
                canonical_name = canonical(name)
                match = decoder_layer.match(canonical_name)
                if match is None or match[0] not in touched:
                    continue
                weight = base.get_tensor(name)
                if layer := adapted.pop(canonical_name, None):
                    change = adapter[f"{layer}.{B}"].float() @ adapter[f"{layer}.{A}"].float()
                    weight = (weight.float() + adapter[f"{layer}.{SCALE}"] * change).to(dtype)
                tensors.append((name, weight))
    if adapted:
        raise AdapterMismatch(f"the base has no {min(adapted)}, which the adapter changes")
    return tensors
