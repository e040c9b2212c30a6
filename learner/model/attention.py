"""The attention mask of a packed row: one rule and its two implementations.

A token attends to itself and to the tokens before it in its segment that are in the prefix or in its own branch. On
CUDA, FlexAttention computes this from a block mask. Elsewhere FlexAttention has no backward pass, so SDPA runs piece by
piece. Neither spends time on masked blocks; SDPA's backward keeps a prefix's keys and values once per branch.

FlexAttention is compiled, twice for all rows that are padded to `padded_length`. After RECOMPILE_LIMIT compilations
Dynamo would go on with dense attention in silence, which needs the memory of all T x T scores; here that is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.flex_attention import flex_attention_forward

# FlexAttention's blocks, and a length below which it would compile a kernel of its own.
BLOCK, LEAST_ROW = 128, 256
RECOMPILE_LIMIT = 32
MaskMod = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class Piece(NamedTuple):
    """A segment of a row: number of tokens in its prefix and in each of the branches after it."""

    prefix: int
    branches: tuple[int, ...]

    @property
    def tokens(self) -> int:
        return self.prefix + sum(self.branches)


def mask_mod(segment: torch.Tensor, branch: torch.Tensor) -> MaskMod:
    """The rule as a FlexAttention mask function: of (batch, head, query, key), indices that broadcast. `segment`,
    `branch`: [B, T], as in packing.batch.Batch. Padding is its own segment and branch, so every query has a key."""

    def sees(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        prefix_or_own_branch = (branch[b, k] == 0) | (branch[b, k] == branch[b, q])
        return (k <= q) & (segment[b, k] == segment[b, q]) & prefix_or_own_branch

    return sees


def block_mask(segment: torch.Tensor, branch: torch.Tensor) -> BlockMask:
    """The rule as FlexAttention's block mask: blocks that are masked throughout are not computed."""
    rows, length = segment.shape
    # Compiled, the rule is evaluated block by block; otherwise for all T x T pairs at once.
    compiled = segment.device.type == "cuda"
    sees = mask_mod(segment, branch)
    return create_block_mask(sees, rows, None, length, length, device=segment.device, _compile=compiled)


def pieces_of(segment: torch.Tensor, branch: torch.Tensor) -> list[list[Piece]]:
    """The pieces of each row. Padding is the last piece, so that a rank without work still runs all layers in its
    backward."""
    rows = []
    for pair in torch.stack([segment, branch], dim=1):
        runs, lengths = torch.unique_consecutive(pair, dim=1, return_counts=True)
        counted = zip(*runs.tolist(), lengths.tolist())
        pieces = [list(piece) for _, piece in groupby(counted, key=lambda run: run[0])]
        rows.append([_piece({number: tokens for _, number, tokens in piece}) for piece in pieces])
    return rows


def _piece(lengths: dict[int, int]) -> Piece:
    """`lengths`: tokens by branch number; 0 is the prefix."""
    return Piece(lengths.pop(0, 0), tuple(lengths.values()))


def packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float,
    pieces: Sequence[Sequence[Piece]],
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention with the signature of transformers' AttentionInterface. query: [B, H, T, D]; key, value: [B, KV heads,
    T, D]; `pieces`: of each of the B rows. Returns [B, T, H, D]."""
    repeats = query.shape[1] // key.shape[1]
    rows = query, key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    outputs = []
    for row_pieces, *row in zip(pieces, *(tensor.split(1) for tensor in rows)):
        lengths = [piece.tokens for piece in row_pieces]
        parts = zip(row_pieces, *(tensor.split(lengths, dim=2) for tensor in row))
        outputs.append(torch.cat([_attend(piece, q, k, v, scaling) for piece, q, k, v in parts], dim=2))
    return torch.cat(outputs).transpose(1, 2).contiguous(), None


def _attend(piece: Piece, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
    """The output of one piece. query, key, value and output: [1, H, tokens, D]."""
    if len(piece.branches) < 2:
        return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
    (query, *queries), (key, *keys), (value, *values) = (
        tensor.split([piece.prefix, *piece.branches], dim=2) for tensor in (query, key, value)
    )
    outputs = [scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)]
    for q, k, v in zip(queries, keys, values):
        mask = q.new_ones(q.shape[2], piece.prefix + q.shape[2], dtype=torch.bool).tril(piece.prefix)
        k, v = torch.cat([key, k], dim=2), torch.cat([value, v], dim=2)
        outputs.append(scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling))
    return torch.cat(outputs, dim=2)


# Registered under our own names, FlexAttention's too: transformers 5.19 allows "flex_attention" for Qwen2, but not for
# the language models of Qwen2.5-VL and Qwen3-VL, although their attention is the same.
FLEX, PACKED = "packed_flex", "packed_sdpa"
AttentionInterface.register(FLEX, flex_attention_forward)
AttentionInterface.register(PACKED, packed_attention)


def attention_for(device_type: str) -> str:
    """The language model's attn_implementation on that type of device."""
    if device_type != "cuda":
        return PACKED
    torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    return FLEX


def padded_length(tokens: int) -> int:
    """The length to which FlexAttention's rows of so many tokens are padded, so that few lengths are compiled."""
    return max(LEAST_ROW, -(-tokens // BLOCK) * BLOCK)


def seen_by(implementation: str, segment: torch.Tensor, branch: torch.Tensor) -> dict[str, Any]:
    """The arguments by which a language model with that attn_implementation receives the mask."""
    if implementation == FLEX:
        return {"attention_mask": block_mask(segment, branch)}
    return {"attention_mask": None, "pieces": pieces_of(segment, branch)}
