"""Which rows a supervised step is made of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from evidence.errors import BadInput
from orchestration.sft import SftConfig, Stage, learning_rate, locate
from orchestration.sft_rows import by_clip
from rollout.dataset.mix import DataShare

DATA = [DataShare("a")]


def test_questions_about_one_clip_are_drawn_together(tmp_path: Path) -> None:
    rows = [
        {"video": f"{clip}.mp4", "task": "t", "question": f"{clip}{q}?", "answer": "It.", "reasoning": "So."}
        for q in range(3)
        for clip in "ab"
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "b.jsonl").write_text(json.dumps(rows[0]))
    clips = by_clip([DataShare(str(tmp_path / "a.jsonl")), DataShare(str(tmp_path / "b.jsonl"))], "answer", seed=0)
    drawn = {tuple(sample.question for sample in clips[n]) for n in range(20)}
    assert drawn == {("a0?", "a1?", "a2?"), ("b0?", "b1?", "b2?"), ("a0?",)}
    with pytest.raises(BadInput, match=r"a\.jsonl: sample 0 has no key_items"):
        by_clip([DataShare(str(tmp_path / "a.jsonl"))], "verify", seed=0)


def test_stages_follow_each_other() -> None:
    stages = [Stage(DATA, 3), Stage(DATA, 2)]
    assert [locate(step, stages) for step in range(5)] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    with pytest.raises(IndexError):
        locate(5, stages)


def test_learning_rate_warms_up_then_falls_to_a_tenth_and_stopping_early_keeps_it() -> None:
    config = SftConfig(stages=[Stage(DATA, 1000)], warmup=100, learning_rate=1e-3)
    rates = [learning_rate(step, config) for step in (0, 49, 100, 550, 1000)]
    np.testing.assert_allclose(rates, [1e-5, 5e-4, 1e-3, 5.5e-4, 1e-4], rtol=1e-6)
    early = SftConfig(stages=[Stage(DATA, 1000)], warmup=100, learning_rate=1e-3, stop_after=600)
    assert early.steps == 600
    assert learning_rate(550, early) == rates[3]


@pytest.mark.parametrize(
    ("change", "word"),
    [({"stages": []}, "stages"), ({"task": "answr"}, "task"), ({"ranks": 0}, "ranks"), ({"clips": 1}, "ranks")],
)
def test_impossible_settings_are_refused(change: dict, word: str) -> None:
    with pytest.raises(BadInput, match=word):
        SftConfig(**({"stages": [Stage(DATA, 1)]} | change))
