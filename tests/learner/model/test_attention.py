"""The attention mask of a packed row: the rule and its two implementations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.attention.flex_attention import create_mask, flex_attention
from transformers import AutoModelForImageTextToText

from learner.model.attention import FLEX, PACKED, Piece, block_mask, mask_mod, packed_attention, pieces_of
from learner.model.patches import Patcher
from learner.model.policy import Policy, Rows
from learner.model.vision import Pixels
from learner.packing.shared_prefix import make_unit
from learner.packing.step import lay_out
from learner.settings import PACKING_MODES, PackingConfig, PolicyConfig

# Two groups side by side, the second without a prefix of its own, and padding.
SEGMENT = [0, 0, 0, 0, 0, 0, 1, 1, 1, -1]
BRANCH = [0, 0, 1, 1, 2, 2, 1, 2, 2, -1]
SEES = """
x.........
xx........
xxx.......
xxxx......
xx..x.....
xx..xx....
......x...
.......x..
.......xx.
.........x
"""


def test_a_token_sees_its_prefix_and_its_own_branch() -> None:
    mask = dense(torch.tensor([SEGMENT]), torch.tensor([BRANCH]))
    assert mask.shape == (1, 1, 10, 10)
    drawn = "\n".join("".join("x" if sees else "." for sees in row) for row in mask[0, 0])
    assert drawn == SEES.strip()


def random_rows(seed: int, rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    segment = np.sort(rng.integers(0, 4, (rows, length)), axis=1)
    branch = np.sort(rng.integers(0, 5, (rows, length)), axis=1)
    segment[:, -5:] = branch[:, -5:] = -1
    return torch.from_numpy(segment), torch.from_numpy(branch)


def dense(segment: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
    """The rule, evaluated for every query and key: bool [B, 1, T, T]."""
    rows, length = segment.shape
    return create_mask(mask_mod(segment, branch), rows, 1, length, length, device="cpu")


def test_pieces_are_the_runs_of_segments_and_branches() -> None:
    (row,) = pieces_of(torch.tensor([SEGMENT]), torch.tensor([BRANCH]))
    assert row == [Piece(2, (2, 2)), Piece(0, (1, 2)), Piece(0, (1,))]
    assert pieces_of(torch.tensor([[-1, -1]]), torch.tensor([[-1, -1]])) == [[Piece(0, (2,))]], "an idle rank's row"


@torch.no_grad()
def test_flex_attention_with_the_block_mask_equals_dense_attention() -> None:
    """300 tokens are three blocks of keys and of queries: some are masked throughout, some not at all."""
    segment, branch = random_rows(1, 2, 300)
    q, k, v = torch.randn(3, 2, 4, 300, 16, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=dense(segment, branch))
    torch.testing.assert_close(flex_attention(q, k, v, block_mask=block_mask(segment, branch)), expected)


@pytest.mark.parametrize("length", [37, 300])
def test_packed_attention_equals_dense_attention_in_value_and_gradient(length: int) -> None:
    """Two query heads per KV head. The outputs of padding are not compared."""
    segment, branch = random_rows(1, 3, length)
    segment[2] = branch[2] = -1  # a row of padding alone
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(3, heads, length, 16, generator=generator, requires_grad=True) for heads in (4, 2, 2))
    cotangent = torch.randn(3, length, 4, 16, generator=generator) * (segment >= 0)[..., None, None]
    seen, _ = packed_attention(nn.Module(), q, k, v, None, 0.3, pieces_of(segment, branch))
    wide = (tensor.repeat_interleave(2, dim=1) for tensor in (k, v))
    expected = torch.nn.functional.scaled_dot_product_attention(q, *wide, attn_mask=dense(segment, branch), scale=0.3)
    expected = expected.transpose(1, 2)
    torch.testing.assert_close(seen[segment >= 0], expected[segment >= 0])
    for mine, theirs in zip(*(torch.autograd.grad(out, (q, k, v), cotangent) for out in (seen, expected))):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("mode", PACKING_MODES)
def test_a_model_that_runs_flex_attention_gives_the_same_logprobs(
    either_model: Path, either_encoder: Any, mode: str
) -> None:
    """Uncompiled and forward only: on a CPU, FlexAttention has no backward pass."""
    patcher = Patcher.of_model(either_model)
    side = patcher.patch * patcher.merge
    rng = np.random.default_rng(0)
    prompts = [either_encoder.encode([(side, side), "What?"])] * 3
    completions = [rng.integers(0, 250, n).astype(np.int32) for n in (3, 9, 5)]
    frames = rng.integers(0, 255, (1, side, side, 3), dtype=np.uint8)
    (layout,) = lay_out([make_unit(prompts, completions, [("clip", frames)])] * 2, 1, PackingConfig(mode))[0]
    patches = patcher.patches(layout.images, layout.batch.frame_counts)
    shown = Pixels(patches, torch.from_numpy(layout.batch.grids))
    logprobs = {}
    for attention in (PACKED, FLEX):
        model = AutoModelForImageTextToText.from_pretrained(either_model, dtype=torch.float32)
        policy = Policy(model, either_encoder.banned_ids, PolicyConfig(), attention)
        assert model.model.language_model.config._attn_implementation == attention
        assert model.model.visual.config._attn_implementation == "sdpa"
        with torch.compiler.set_stance("force_eager"):
            logprobs[attention] = policy(Rows.of(layout.batch), shown, 1.0).logprobs
    torch.testing.assert_close(logprobs[FLEX], logprobs[PACKED], atol=1e-5, rtol=1e-5)
