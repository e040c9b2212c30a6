"""FLOPs computed from shapes match those that torch counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoConfig

from benchmarks.flops import language_flops, pairs, tower_flops
from benchmarks.learner import parts_of
from benchmarks.learner_task import make_task, vision_flops


def test_flops_match_those_that_torch_counts(tiny_model: Path) -> None:
    task = make_task(tiny_model, prompt_tokens=300, completion_tokens=40, group=2, sizes=None)
    tower, whole = vision_flops(task, tiny_model)
    config = AutoConfig.from_pretrained(tiny_model)
    assert tower_flops(config.vision_config, task.prompt.grids) == pytest.approx(tower, rel=0.01)

    (forwards,) = parts_of([task], "none", budget=400)
    micro = forwards[0]
    text = config.get_text_config()
    forward = language_flops(text, micro.batch) / 3
    # Eager attention, which torch counts, also computes masked pairs; and it runs the last token.
    attended, tokens = pairs(micro.batch), 340
    masked = 4 * text.hidden_size * text.num_hidden_layers * (tokens**2 - attended)
    assert forward + masked == pytest.approx(whole - tower, rel=0.01)
