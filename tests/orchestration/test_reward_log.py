"""What is logged of a step's rewards, and when missing verdicts stop a run."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evidence.types import FrameInfo, Group, Prompt, Sample, ScoredGroup
from orchestration.reward_log import LeftOutWatch, TermsLeftOut, reward_metrics
from referee.reward.settings import RewardConfig, TermConfig

INFO = FrameInfo("key", (0.0,), (56, 56), (56, 56), 1.0)
NONE = np.zeros(0, np.int32)


def scored(task: str, rewards: list[float], left_out: bool = False, **terms: list[float]) -> ScoredGroup:
    sample = Sample("s", "test", task, "Where?", "left", video_path="a.mp4")
    group = Group(0, sample, INFO, Prompt(NONE, NONE, NONE, NONE), (), 0)
    values = {name: np.array(numbers, np.float32) for name, numbers in terms.items()}
    return ScoredGroup(group, np.array(rewards, np.float32), values, {} if left_out else values, {}, ())


def test_terms_are_logged_over_all_and_by_task_and_only_where_they_are_known():
    metrics = reward_metrics(
        [scored("a", [1, 3], ser=[0.5, 0.7]), scored("b", [2, 2], ser=[0, 0]), scored("c", [0, 4], ser=[math.nan] * 2)]
    )
    assert metrics["reward"] == 2
    assert metrics["reward/equal_groups"] == pytest.approx(1 / 3)
    assert metrics["reward/ser"] == pytest.approx(0.3)
    assert metrics["reward/a/ser"] == pytest.approx(0.6)
    assert "reward/c/ser" not in metrics


def test_a_run_stops_when_too_many_of_the_last_groups_lack_a_term():
    config = RewardConfig(terms={"ser": TermConfig()}, max_left_out=0.5, watched=4)
    whole, lacking = scored("a", [1, 3], ser=[1, 2]), scored("a", [1, 3], left_out=True, ser=[math.nan, 1])
    watch = LeftOutWatch(config)
    watch.see([lacking, lacking, lacking])  # too few groups to say
    with pytest.raises(TermsLeftOut, match="3 of the last 4 groups"):
        watch.see([whole])
    watch = LeftOutWatch(config)
    for _ in range(5):
        watch.see([whole, lacking])
