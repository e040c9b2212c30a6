"""Models of the shipped shapes on the meta device, whose tensors have sizes and no memory, and what torch counts."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AutoConfig, AutoModelForImageTextToText, PreTrainedModel

from benchmarks.logprob_memory import PeakBytes
from orchestration.planning.shapes import SHAPES

FUSED = "test_fused"


class _Fused(torch.autograd.Function):
    """What a fused attention kernel keeps: its inputs, its output, and a float32 per query and head."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(query)  # with the strides of the query, as FlexAttention's
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


def _fused(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: None, **_: Any
) -> tuple[torch.Tensor, None]:
    heads = query.shape[1]
    if heads & (heads - 1):  # as transformers does for FlexAttention
        key, value = (tensor.repeat_interleave(heads // tensor.shape[1], 1) for tensor in (key, value))
    return _Fused.apply(query, key, value).transpose(1, 2).contiguous(), None


AttentionInterface.register(FUSED, _fused)


def meta_model(name: str) -> PreTrainedModel:
    """A model of a shipped shape in bfloat16, without memory."""
    content = json.loads((SHAPES / f"{name}.json").read_text())
    kind = content.pop("model_type")
    vision = content.pop("vision_config")
    text = content.pop("text_config", content)
    section = [24, 20, 20] if kind == "qwen3_vl" else [16, 24, 24]
    text |= {"rope_parameters": {"rope_type": "default", "mrope_section": section, "rope_theta": 1e6}}
    tied = content.get("tie_word_embeddings", False)
    config = AutoConfig.for_model(kind, text_config=text, vision_config=vision, tie_word_embeddings=tied)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    model.set_attn_implementation({"text_config": FUSED})
    return model


def peak_activations(model: PreTrainedModel, tokens: int, checkpointing: bool) -> int:
    """Peak bytes alive in a forward and backward of the language model, its weights aside. A weight's gradient is
    dropped as soon as it is complete."""
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
    language = model.model.language_model
    for parameter in language.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    inputs, positions = _inputs(model, tokens)
    with PeakBytes() as counted:
        out = language(inputs_embeds=inputs, position_ids=positions, use_cache=False, attention_mask=None)
        hidden = out.last_hidden_state
        hidden.backward(torch.empty_like(hidden))
    return counted.peak


def saved_bytes(model: PreTrainedModel, tokens: int) -> int:
    """Bytes that autograd keeps in a forward of the language model, each storage once and weights aside."""
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            storages[storage._cdata] = storage
        return tensor

    inputs, positions = _inputs(model, tokens)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.model.language_model(inputs_embeds=inputs, position_ids=positions, use_cache=False, attention_mask=None)
    return sum(storage.nbytes() for storage in storages.values())


def _inputs(model: PreTrainedModel, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    width = model.config.get_text_config().hidden_size
    embeds = torch.empty(1, tokens, width, device="meta", dtype=torch.bfloat16, requires_grad=True)
    return embeds, torch.empty(3, 1, tokens, device="meta", dtype=torch.int64)
