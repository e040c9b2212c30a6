"""The mask of a packed row: the rule, and its two forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention.flex_attention import create_mask, flex_attention
from transformers import AutoModelForImageTextToText

from learner.attention import FLEX, attention_for, block_mask, dense_mask, mask_mod
from learner.micro import lay_out
from learner.packing.units import make_unit
from learner.patches import Patcher
from learner.policy import Policy, Rows
from learner.settings import PACKING_MODES, PackingConfig, PolicyConfig
from learner.vision import Pixels

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
    mask = dense_mask(torch.tensor([SEGMENT]), torch.tensor([BRANCH]))
    assert mask.shape == (1, 1, 10, 10)
    drawn = "\n".join("".join("x" if sees else "." for sees in row) for row in mask[0, 0])
    assert drawn == SEES.strip()


def random_rows(seed: int, rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    segment = np.sort(rng.integers(0, 4, (rows, length)), axis=1)
    branch = np.sort(rng.integers(0, 5, (rows, length)), axis=1)
    segment[:, -5:] = branch[:, -5:] = -1
    return torch.from_numpy(segment), torch.from_numpy(branch)


@pytest.mark.parametrize("length", [37, 300])
def test_flex_attentions_rule_is_the_dense_mask(length: int) -> None:
    segment, branch = random_rows(0, 3, length)
    evaluated = create_mask(mask_mod(segment, branch), 3, 1, length, length, device="cpu")
    torch.testing.assert_close(evaluated, dense_mask(segment, branch))


@torch.no_grad()
def test_flex_attention_with_the_block_mask_is_dense_attention() -> None:
    """300 tokens are three blocks of keys and of queries, some of them left out, some whole."""
    segment, branch = random_rows(1, 2, 300)
    q, k, v = torch.randn(3, 2, 4, 300, 16, generator=torch.Generator().manual_seed(0))
    dense = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=dense_mask(segment, branch))
    torch.testing.assert_close(flex_attention(q, k, v, block_mask=block_mask(segment, branch)), dense)


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
    found = {}
    for device in ("cpu", "cuda"):
        model = AutoModelForImageTextToText.from_pretrained(
            either_model, dtype=torch.float32, attn_implementation=attention_for(device)
        )
        policy = Policy(model, either_encoder.banned_ids, PolicyConfig())
        assert model.model.language_model.config._attn_implementation == (FLEX if device == "cuda" else "sdpa")
        assert model.model.visual.config._attn_implementation == "sdpa"
        with torch.compiler.set_stance("force_eager"):
            found[device] = policy(Rows.of(layout.batch), shown, 1.0).logprobs
    torch.testing.assert_close(found["cuda"], found["cpu"], atol=1e-5, rtol=1e-5)
