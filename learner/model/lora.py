"""Low-rank adapters on the language model, by peft: W + scale B A, of which only A [rank, in] and B [out, rank] are
trained, checkpointed and published (arXiv 2106.09685).

Guarantees: every rank starts with the same A; B starts at 0, so the adapted model starts as the base; with its adapters
off the model is the base, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from evidence.errors import BadInput
from evidence.families import Family
from evidence.lora_names import SCALE, A, B
from learner.settings import LoraSpec

# peft's name for an adapter that was given no name.
ADAPTER = "default"
SEED = 0


def add_adapters(model: nn.Module, family: Family, spec: LoraSpec) -> None:
    """Add adapters to a model of `family` in place and freeze everything else. Raises BadInput for a target that the
    language model does not have."""
    from peft import LoraConfig, inject_adapter_in_model  # not needed, and not imported, without adapters

    unknown = set(spec.targets) - set(family.lora_layers)
    if unknown:
        layers = ", ".join(sorted(family.lora_layers))
        raise BadInput(f"lora.targets: the model has no layer {min(unknown)}, but {layers}")
    targets = spec.targets or family.lora_layers
    prefix = f"{family.language_model}."
    wanted = [
        name for name, _ in model.named_modules() if name.startswith(prefix) and name.rpartition(".")[2] in targets
    ]
    # peft declares an integer, but only divides alpha by the rank.
    alpha: Any = spec.alpha
    config = LoraConfig(r=spec.rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=wanted)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        inject_adapter_in_model(config, model, ADAPTER)


def _layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The adapted layers, peft's LoraLayer, by their names in the model."""
    from peft.tuners.lora import LoraLayer

    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))


def adapter_scales(model: nn.Module) -> dict[str, float]:
    """The scale of each adapted layer, by its name in the model; empty without adapters."""
    return {name: layer.scaling[ADAPTER] for name, layer in _layers(model)}


def checkpoint_name(name: str) -> str:
    """A parameter's name when published and saved: the name without peft, or X.lora_A, X.lora_B for a layer X."""
    return (
        name.replace(".base_layer.", ".")
        .replace(f".{A}.{ADAPTER}.weight", f".{A}")
        .replace(f".{B}.{ADAPTER}.weight", f".{B}")
    )


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """Inside this context the model is the base."""
    layers = [layer for _, layer in _layers(model)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def as_constants(scales: Mapping[str, float]) -> dict[str, np.ndarray]:
    """The scale of each adapted layer as it is published, float32 []."""
    return {f"{layer}.{SCALE}": np.array(scale, np.float32) for layer, scale in scales.items()}


def merge(tensors: dict[str, torch.Tensor], scales: Mapping[str, float]) -> dict[str, torch.Tensor]:
    """`tensors`, by checkpoint name, with the adapters merged into their layers' weights."""
    merged = dict(tensors)
    for layer, scale in scales.items():
        a, b = merged.pop(f"{layer}.{A}"), merged.pop(f"{layer}.{B}")
        weight = merged[f"{layer}.weight"]
        merged[f"{layer}.weight"] = (weight.float() + scale * (b.float() @ a.float())).to(weight.dtype)
    return merged
