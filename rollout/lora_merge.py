"""A published adapter becomes whole weights again: the base's, read from the model's folder, plus scale B A.

Guarantee: what comes out are whole decoder layers, since vLLM reloads a layer whole or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open

from evidence.lora_names import SCALE, A, B


class AdapterMismatch(RuntimeError):
    """An adapter that does not belong to the base it is to be merged into, or is not whole."""


def is_adapter(names: frozenset[str]) -> bool:
    return any(name.endswith(f".{SCALE}") for name in names)


def merged_layers(
    folder: Path,
    adapter: Mapping[str, torch.Tensor],
    canonical: Callable[[str], str],
    decoder_layer: re.Pattern[str],
    dtype: torch.dtype,
) -> list[tuple[str, torch.Tensor]]:
    """All tensors of each decoder layer that `adapter` touches, under the checkpoint names of the base in `folder`.

    adapter: X.lora_A [rank, in], X.lora_B [out, rank], X.lora_scale [] of linear layers X. canonical: one name for a
    tensor that transformers calls one thing in memory and another in checkpoints. decoder_layer: matches a decoder
    layer's prefix at the start of a canonical name. dtype: of the merged ones.
    Raises AdapterMismatch.
    """
    adapted = {canonical(f"{layer}.weight"): layer for layer in (name.rpartition(".")[0] for name in adapter)}
    wanted = {f"{layer}.{part}" for layer in adapted.values() for part in (A, B, SCALE)}
    if wanted != adapter.keys():
        raise AdapterMismatch(f"not whole: of {len(wanted ^ adapter.keys())} tensors, {min(wanted ^ adapter.keys())}")
    touched = {match[0] for match in map(decoder_layer.match, adapted) if match}
    found = []
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as base:
            for name in base.keys():  # noqa: SIM118
                own = canonical(name)
                match = decoder_layer.match(own)
                if match is None or match[0] not in touched:
                    continue
                weight = base.get_tensor(name)
                if layer := adapted.pop(own, None):
                    change = adapter[f"{layer}.{B}"].float() @ adapter[f"{layer}.{A}"].float()
                    weight = (weight.float() + adapter[f"{layer}.{SCALE}"] * change).to(dtype)
                found.append((name, weight))
    if adapted:
        raise AdapterMismatch(f"the base has no {min(adapted)}, which the adapter is for")
    return found
