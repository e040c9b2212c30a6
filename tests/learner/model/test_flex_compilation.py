"""FlexAttention is compiled for few lengths of rows, and never gives way to dense attention in silence."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch._dynamo
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch._dynamo.utils import counters
from torch.nn.attention.flex_attention import create_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from learner.model.attention import FLEX, RECOMPILE_LIMIT, attention_for, block_mask, mask_mod, padded_length
from learner.model.policy import Rows

LENGTHS = (300, 517, 1040, 130, 1, 900, 128, 640, 257, 384, 256)


@pytest.fixture
def dynamo() -> Iterator[None]:
    """Dynamo as a rank on CUDA sets it, and as it was afterwards."""
    with torch._dynamo.config.patch():
        torch._dynamo.reset()
        counters.clear()
        assert attention_for("cuda") == FLEX
        yield
    torch._dynamo.reset()


def of_tokens(tokens: int) -> Rows:
    """One row of two groups and padding, with three scored tokens."""
    rng = np.random.default_rng(tokens)
    segment, branch = (torch.from_numpy(np.sort(rng.integers(0, most, (1, tokens)), axis=1)) for most in (2, 4))
    empty = torch.zeros(0, dtype=torch.int64)
    ids = torch.arange(tokens)[None]
    return Rows(ids, ids.expand(3, 1, tokens), segment, branch, ids[0, -3:], empty, empty, empty)


@pytest.mark.slow
@torch.no_grad()
def test_two_compilations_serve_all_lengths(dynamo: None) -> None:
    compiled = torch.compile(flex_attention)
    for tokens in LENGTHS:
        rows = of_tokens(tokens)
        rows = rows.padded_to(length := padded_length(tokens))
        assert (length % 128, length - tokens < 256, rows.segment.shape) == (0, True, (1, length))
        q, k, v = torch.randn(3, 1, 2, length, 16, generator=torch.Generator().manual_seed(tokens))
        seen = compiled(q, k, v, block_mask=block_mask(rows.segment, rows.branch))
        mask = create_mask(mask_mod(rows.segment, rows.branch), 1, 1, length, length, device="cpu")
        torch.testing.assert_close(seen, scaled_dot_product_attention(q, k, v, attn_mask=mask))
    assert counters["stats"]["unique_graphs"] == 2


def test_padding_moves_the_scored_tokens_along() -> None:
    row = of_tokens(10)
    two = Rows(*(torch.cat([part] * 2, dim=-2) for part in row[:4]), torch.tensor([2, 9, 12]), *row[5:])
    padded = two.padded_to(256)
    before, after = two.token_ids.flatten()[two.predict_from], padded.token_ids.flatten()[padded.predict_from]
    assert before.tolist() == after.tolist() == [2, 9, 2]
    assert (padded.segment[:, 10:] == -1).all()
    assert (padded.branch[:, 10:] == -1).all()
    assert padded.positions.shape == (3, 2, 256)


def test_the_recompile_limit_is_an_error(dynamo: None) -> None:
    compiled = torch.compile(lambda x: x + 1, dynamic=False, backend="eager")
    for tokens in range(2, RECOMPILE_LIMIT + 2):
        compiled(torch.zeros(tokens))
    with pytest.raises(FailOnRecompileLimitHit):
        compiled(torch.zeros(RECOMPILE_LIMIT + 2))
