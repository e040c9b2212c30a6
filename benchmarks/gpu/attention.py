"""FlexAttention as the learner calls it, against exact attention in float32 on the CPU: values and gradients.

On a CPU FlexAttention has no backward, so the values alone are compared.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface

from benchmarks.gpu.setting import Setting
from benchmarks.gpu.workload import make_row
from learner.model.attention import FLEX, PACKED, attention_for, padded_length, seen_by
from learner.model.policy import Rows

HEADS, KV_HEADS, WIDTH = 28, 4, 128  # of Qwen2.5-VL-7B


def measure(setting: Setting) -> dict[str, Any]:
    """The largest difference of each tensor, relative to its root mean square, by dtype."""
    if setting.on_gpu:
        attention_for("cuda")  # the limits of recompilation
    tokens, heads, kv_heads = (300, 2, 1) if setting.small else (3000, HEADS, KV_HEADS)
    rows = Rows.of(make_row(tokens, groups=2, branches=4, completion=tokens // 20).batch)
    rows = rows.padded_to(padded_length(tokens))
    length = rows.token_ids.shape[1]
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(1, n, length, WIDTH, generator=generator) for n in (heads, kv_heads, kv_heads)]
    flow = torch.randn(1, length, heads, WIDTH, generator=generator)
    exact = attend(PACKED, rows, inputs, flow if setting.on_gpu else None, torch.device("cpu"), torch.float32)
    by_dtype = {}
    for dtype in (torch.float32, torch.bfloat16) if setting.on_gpu else (torch.float32,):
        computed = attend(FLEX, rows, inputs, flow if setting.on_gpu else None, setting.device, dtype)
        by_dtype[str(dtype).removeprefix("torch.")] = {
            name: float((a.cpu().float() - b).abs().max() / b.square().mean().sqrt())
            for name, a, b in zip(("output", "d_query", "d_key", "d_value"), computed, exact)
        }
    return {"tokens": tokens, "padded": length, "heads": heads, "largest_difference_over_rms": by_dtype}


def attend(
    implementation: str,
    rows: Rows,
    inputs: list[torch.Tensor],
    flow: torch.Tensor | None,
    device: torch.device,
    dtype: torch.dtype,
) -> list[torch.Tensor]:
    """The output and, with `flow` as its gradient, the gradients of query, key and value."""
    query, key, value = (tensor.to(device, dtype, copy=True).requires_grad_(flow is not None) for tensor in inputs)
    module = nn.Module().train()
    mask = seen_by(implementation, rows.segment.to(device), rows.branch.to(device))
    function = AttentionInterface()[implementation]
    output = function(module, query, key, value, scaling=WIDTH**-0.5, **mask)[0]
    if flow is None:
        return [output]
    return [output.detach(), *torch.autograd.grad(output, (query, key, value), flow.to(device, dtype))]
