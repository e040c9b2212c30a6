"""The reward metrics of a step, and the watches for missing verdicts and for disagreement with labelled boxes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from evidence.types import Claim, ClaimScore, FrameInfo, Group, KeyFrame, Prompt, Sample, ScoredGroup, Verdict
from orchestration.reporting.reward_log import LeftOutWatch, RewardLog, TermsLeftOut, labelled_claims, reward_metrics
from referee.reward.settings import RewardConfig, TermConfig
from referee.trust.agreement import AgreementConfig

INFO = FrameInfo("key", (0.0, 4.0), (56, 56), (56, 56), 5.0)
EMPTY = np.zeros(0, np.int32)


def scored(task: str, rewards: list[float], left_out: bool = False, **terms: list[float]) -> ScoredGroup:
    sample = Sample("s", "test", task, "Where?", "left", video_path="a.mp4")
    group = Group(0, sample, INFO, Prompt(EMPTY, EMPTY, EMPTY, EMPTY), (), 0)
    values = {name: np.array(numbers, np.float32) for name, numbers in terms.items()}
    return ScoredGroup(group, np.array(rewards, np.float32), values, {} if left_out else values, {}, ())


def test_terms_are_averaged_over_all_tasks_and_by_task_where_they_are_known():
    metrics = reward_metrics(
        [scored("a", [1, 3], ser=[0.5, 0.7]), scored("b", [2, 2], ser=[0, 0]), scored("c", [0, 4], ser=[math.nan] * 2)]
    )
    assert metrics["reward"] == 2
    assert metrics["reward/equal_groups"] == pytest.approx(1 / 3)
    assert metrics["reward/ser"] == pytest.approx(0.3)
    assert metrics["reward/a/ser"] == pytest.approx(0.6)
    assert "reward/c/ser" not in metrics


def test_a_run_stops_if_too_many_of_the_last_groups_lack_a_term():
    config = RewardConfig(terms={"ser": TermConfig()}, max_left_out=0.5, watched=4)
    complete, lacking = scored("a", [1, 3], ser=[1, 2]), scored("a", [1, 3], left_out=True, ser=[math.nan, 1])
    watch = LeftOutWatch(config)
    watch.see([lacking, lacking, lacking])  # too few groups to decide
    with pytest.raises(TermsLeftOut, match="3 of the last 4 groups"):
        watch.see([complete])
    watch = LeftOutWatch(config)
    for _ in range(5):
        watch.see([complete, lacking])


def claim_score(box: tuple[float, float, float, float], score: float, time: float = 0.0) -> ClaimScore:
    return ClaimScore(Claim("cup", box, time, (0, 0)), Verdict(score, 1.0), 0.0, score)


def labelled(*claims: ClaimScore, question: str = "Where is the cup?") -> ScoredGroup:
    """A group of one completion with these claims, on a clip whose cup fills the left half of a 56-pixel frame."""
    labels = {"0": {"cup": ((0.0, 0.0, 0.5, 1.0),)}}
    sample = Sample(
        "s", "test", "a", question, "left", video_path="a", key_frames=(KeyFrame("0", 0.0),), key_items=labels
    )
    group = Group(0, sample, INFO, Prompt(EMPTY, EMPTY, EMPTY, EMPTY), (), 0)
    ser = {"ser": np.array([np.mean([claim.score for claim in claims])], np.float32)}
    return ScoredGroup(group, ser["ser"], ser, ser, {"ser": 1.0}, (claims,))


def test_scores_are_compared_with_boxes_only_where_the_object_asked_about_is_labelled():
    left_half, whole_frame = claim_score((0, 0, 28, 56), 0.9), claim_score((0, 0, 56, 56), 0.3)
    unlabelled = labelled(left_half, question="What is this?")
    claims, reward = labelled_claims([labelled(left_half, whole_frame), unlabelled], "ser")
    assert claims == [(0.9, 1.0), (0.3, 0.5)]
    assert reward == pytest.approx(0.6)
    assert math.isnan(labelled_claims([unlabelled], "ser")[1])


def test_claims_on_frames_without_labels_are_not_compared():
    on_labelled, on_unlabelled = claim_score((0, 0, 28, 56), 0.9), claim_score((0, 0, 28, 56), 0.1, time=4.0)
    assert labelled_claims([labelled(on_labelled, on_unlabelled)], "ser")[0] == [(0.9, 1.0)]


def test_agreement_is_watched_under_any_name_of_the_ser_term():
    config = RewardConfig(terms={"evidence": TermConfig(use="ser")})
    group = labelled(claim_score((0, 0, 28, 56), 0.9))
    terms = {"evidence": group.terms["ser"]}
    metrics = RewardLog(config, AgreementConfig()).step([replace(group, terms=terms, paid=terms)])
    assert metrics["agreement/claims"] == 1


def test_a_policy_that_pleases_the_referee_but_not_the_boxes_is_noticed():
    config = RewardConfig(terms={"ser": TermConfig()})
    watch = RewardLog(config, AgreementConfig(window=2, least=2))
    rng = np.random.default_rng(0)

    def step(honest: bool) -> dict[str, float]:
        widths = rng.uniform(5, 28, 8)  # IoU with the cup is width / 28
        scores = [width / 40 if honest else 0.95 - width / 300 for width in widths]
        return watch.step([labelled(claim_score((0, 0, width, 56), score)) for width, score in zip(widths, scores)])

    alarms = [step(honest)["agreement/alarm"] for honest in (True, True, True, False, False)]
    assert alarms[:3] == [0, 0, 0]
    assert alarms[-1] == 1
    assert step(honest=False)["agreement/spearman"] < 0
    assert watch.alarm is not None
    assert "pleasing the referee" in watch.alarm
