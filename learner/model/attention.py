"""Which token sees which in a packed row: one rule, and the two ways in which it is computed.

A token sees those before it (and itself) in its segment that are in the prefix or in its own branch. FlexAttention does
that on CUDA, from a block mask; elsewhere, where it has no backward pass, SDPA does it piece by piece. In both, what is
not seen takes no time; SDPA's backward keeps a prefix's keys and values once for each of its branches.
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

MaskMod = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class Piece(NamedTuple):
    """A segment of a row: tokens of its prefix and, behind it, of each of its branches."""

    prefix: int
    branches: tuple[int, ...]

    @property
    def tokens(self) -> int:
        return self.prefix + sum(self.branches)


def mask_mod(segment: torch.Tensor, branch: torch.Tensor) -> MaskMod:
    """The rule as FlexAttention wants it: of (batch, head, query, key), indices that broadcast. `segment`, `branch`:
    [B, T], as in packing.batch.Batch. Padding is a segment and a branch of its own, so that no row is without a key."""

    def sees(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        own = (branch[b, k] == 0) | (branch[b, k] == branch[b, q])
        return (k <= q) & (segment[b, k] == segment[b, q]) & own

    return sees


def block_mask(segment: torch.Tensor, branch: torch.Tensor) -> BlockMask:
    """The rule for FlexAttention: blocks in which nothing is seen are not computed."""
    rows, length = segment.shape
    # Compiled, the rule is evaluated block by block; otherwise all T x T at once.
    compiled = segment.device.type == "cuda"
    sees = mask_mod(segment, branch)
    return create_block_mask(sees, rows, None, length, length, device=segment.device, _compile=compiled)


def pieces_of(segment: torch.Tensor, branch: torch.Tensor) -> list[list[Piece]]:
    """The pieces of each row. Its padding is the last, so that a rank with nothing to run has all layers in its
    backward, too."""
    rows = []
    for pair in torch.stack([segment, branch], dim=1):
        runs, lengths = torch.unique_consecutive(pair, dim=1, return_counts=True)
        found = zip(*runs.tolist(), lengths.tolist())
        pieces = [list(piece) for _, piece in groupby(found, key=lambda run: run[0])]
        rows.append([_piece({number: tokens for _, number, tokens in piece}) for piece in pieces])
    return rows


def _piece(lengths: dict[int, int]) -> Piece:
    """`lengths`: of each branch, the prefix being 0."""
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
    """As transformers calls it. query: [B, H, T, D]; key, value: [B, heads of their own, T, D]; `pieces`: of each of
    the B rows. Returns [B, T, H, D]."""
    repeats = query.shape[1] // key.shape[1]
    rows = query, key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    found = []
    for own, *row in zip(pieces, *(each.split(1) for each in rows)):
        parts = zip(own, *(each.split([piece.tokens for piece in own], dim=2) for each in row))
        found.append(torch.cat([_attend(piece, q, k, v, scaling) for piece, q, k, v in parts], dim=2))
    return torch.cat(found).transpose(1, 2).contiguous(), None


def _attend(piece: Piece, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
    """[1, H, tokens, D], each."""
    if len(piece.branches) < 2:
        return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
    (query, *queries), (key, *keys), (value, *values) = (
        each.split([piece.prefix, *piece.branches], dim=2) for each in (query, key, value)
    )
    seen = [scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)]
    for q, k, v in zip(queries, keys, values):
        mask = q.new_ones(q.shape[2], piece.prefix + q.shape[2], dtype=torch.bool).tril(piece.prefix)
        k, v = torch.cat([key, k], dim=2), torch.cat([value, v], dim=2)
        seen.append(scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling))
    return torch.cat(seen, dim=2)


# For a language model, under names of their own; that of FlexAttention since transformers (5.19) lets Qwen2 ask for it,
# but not the language models of Qwen2.5-VL and Qwen3-VL, whose attention is the same.
FLEX, PACKED = "packed_flex", "packed_sdpa"
AttentionInterface.register(FLEX, flex_attention_forward)
AttentionInterface.register(PACKED, packed_attention)


def attention_for(device_type: str) -> str:
    """The language model's attn_implementation there."""
    return FLEX if device_type == "cuda" else PACKED


def seen_by(implementation: str, segment: torch.Tensor, branch: torch.Tensor) -> dict[str, Any]:
    """What a language model of that attn_implementation has to be called with."""
    if implementation == FLEX:
        return {"attention_mask": block_mask(segment, branch)}
    return {"attention_mask": None, "pieces": pieces_of(segment, branch)}
