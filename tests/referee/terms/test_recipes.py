"""The baselines' recipes as loaded from configs/reward, on completions scored by hand."""

import math
from dataclasses import replace

import pytest
from views import answered, sample, view

from evidence.types import KeyFrame
from orchestration.config import CONFIGS, load_config
from referee.reward.graph import RewardGraph
from referee.reward.settings import RewardConfig


def recipe(name: str) -> RewardGraph:
    return RewardGraph(load_config(RewardConfig, CONFIGS / "reward" / f"{name}.yaml"))


def test_open_o3_sums_its_seven_terms():
    of = sample(
        "temporal-spatial free-form QA",
        "a red cup",
        key_frames=(KeyFrame("3", 2.0),),
        key_items={"3": {"red cup": ((0.1, 0.2, 0.3, 0.8),)}},
    )
    think = "<think><obj>red cup</obj><box>[10,10,30,25]</box>at<t>4.0</t>s</think>"
    graph = recipe("open_o3")
    scored = graph.score(view(of, think + "<answer>a red dog</answer>", "", progress=1.0))
    words, point, spatial = (2 / 3 + 1 / 2 + 2 / 3) / 3, math.exp(-2), 0.5
    assert list(scored.terms) == [
        "ans_acc",
        "ans_tiou",
        "ans_viou",
        "format",
        "thk_temporal_segment",
        "thk_temporal_point",
        "thk_spatial",
    ]
    assert [values[0] for values in scored.terms.values()] == pytest.approx([words, 0, 0, 1, 0, point, spatial])
    assert scored.rewards.tolist() == pytest.approx([words + 1 + point + spatial, 0])


def test_rler_pays_cited_frames_only_for_right_and_well_formed_answers():
    of = sample("multiple choice", "B")
    think = "<think>" + "a b c " * 20 + "</think>"  # 60 of 320 words; 58 runs of three words, three of them distinct
    cited = "<keyframes>[3, 5, 9]</keyframes>"  # of eight shown frames
    right, wrong, bare = (f"{think}{k}<answer>{a}</answer>" for k, a in ((cited, "B"), (cited, "A"), ("", "B")))
    scored = recipe("rler").score(view(of, right, wrong, bare))
    thought = 0.3 * math.sin(math.pi * 60 / 320) ** 2 - 0.3 * (1 - 3 / 58)
    assert scored.terms["frame_sensitive"].tolist() == pytest.approx([1 / 3, 1 / 3, 0])
    assert scored.rewards.tolist() == pytest.approx([0.1 + 0.1 + 0.2 / 3 + thought, 0.1 + thought, 0.1 + thought])


def test_video_r1_adds_its_two_bonuses():
    of = sample("regression", "100")
    lengths = (400, 600, 400, 320)
    group = replace(answered(of, "100", "93", "x", "100"), lengths=lengths, contrast=answered(of, "x", "100"))
    scored = recipe("video_r1").score(group)
    assert scored.rewards.tolist() == pytest.approx([1 + 1 + 0.3 + 0.2, 0.93 + 1 + 0.3, 1, 1 + 1 + 0.3 + 0.2])


def test_accuracy_only_is_accuracy():
    scored = recipe("accuracy_only").score(answered(sample("multiple choice", "B"), "(B)", "A"))
    assert scored.rewards.tolist() == [1, 0]
    assert list(scored.terms) == ["acc"]
