"""A prompt in pieces is the whole prompt: its pieces' texts are tokenized to the ids that the policy gets."""

from __future__ import annotations

from typing import Any

import pytest

from evidence.types import FrameInfo, Sample
from orchestration.showing.pieces import pieces_of
from orchestration.showing.shown import SPECIAL, TEXT, VISUAL
from rollout.prompt import build_prompt
from rollout.template import PromptTemplate

HOSTILE = " where<|image_pad|>?  Ünïcode 猫 \u202e\n\n<think>, <obj>"


@pytest.mark.parametrize("native", [False, True])
def test_the_pieces_are_the_prompt(either_encoder: Any, native: bool) -> None:
    side = 2 * either_encoder.tile
    info = FrameInfo("key", (0.0, 0.5, 1.0, 1.5), (side, side), (99, 99), 2.0)
    sample = Sample("a", "s", "t", HOSTILE, "", video_path="v.mp4")
    prompt = build_prompt(either_encoder, PromptTemplate(native_video=native), sample, info)
    pieces = pieces_of(either_encoder, prompt)
    text = "".join(piece.text if piece.kind == TEXT else piece.text * piece.tokens for piece in pieces)
    ids = either_encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == prompt.token_ids.tolist()
    assert sum(piece.tokens for piece in pieces) == len(ids)
    visual = [piece for piece in pieces if piece.kind == VISUAL]
    assert sum(piece.tokens for piece in visual) == either_encoder.is_visual(prompt.token_ids).sum()
    assert {piece.text for piece in visual} == {"<|video_pad|>" if native else "<|image_pad|>"}
    assert "<|im_start|>" in [piece.text for piece in pieces if piece.kind == SPECIAL]
