"""Which token sees which in a packed row: one rule, as a dense mask and as FlexAttention's block mask.

A token sees those before it (and itself) in its segment that are in the prefix or in its own branch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import AttentionInterface
from transformers.integrations.flex_attention import flex_attention_forward

# FlexAttention for a language model. Under a name of its own, since transformers (5.19) lets Qwen2 ask for it, but not
# the language models of Qwen2.5-VL and Qwen3-VL, whose attention is the same.
FLEX = "packed_flex"
AttentionInterface.register(FLEX, flex_attention_forward)

MaskMod = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def mask_mod(segment: torch.Tensor, branch: torch.Tensor) -> MaskMod:
    """The rule as FlexAttention wants it: of (batch, head, query, key), indices that broadcast. `segment`, `branch`:
    [B, T], as in packing.batch.Batch. Padding is a segment and a branch of its own, so that no row is without a key."""

    def sees(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        own = (branch[b, k] == 0) | (branch[b, k] == branch[b, q])
        return (k <= q) & (segment[b, k] == segment[b, q]) & own

    return sees


def attention_for(device_type: str) -> dict[str, str]:
    """What `from_pretrained` takes as attn_implementation: FlexAttention on CUDA, else SDPA."""
    return {"text_config": FLEX if device_type == "cuda" else "sdpa"}


def dense_mask(segment: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
    """bool [B, 1, T, T], True where the query (third axis) sees the key (last axis)."""
    rows, length = segment.shape
    b = torch.arange(rows, device=segment.device)[:, None, None, None]
    at = torch.arange(length, device=segment.device)
    return mask_mod(segment, branch)(b, b, at[:, None], at)


def block_mask(segment: torch.Tensor, branch: torch.Tensor) -> BlockMask:
    """The same for FlexAttention: blocks in which nothing is seen are not computed."""
    rows, length = segment.shape
    # Compiled, the rule is evaluated block by block; otherwise all T x T at once.
    compiled = segment.device.type == "cuda"
    sees = mask_mod(segment, branch)
    return create_block_mask(sees, rows, None, length, length, device=segment.device, _compile=compiled)
