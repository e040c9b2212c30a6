"""The warning about a run that has nothing to learn from."""

from __future__ import annotations

import numpy as np
import pytest

from evidence.types import FrameInfo, Group, Prompt, Sample, ScoredGroup, Trajectory
from orchestration.reporting.learning import REPEATED_AFTER, WATCHED_STEPS, LearningWatch
from referee.reward.settings import RewardConfig, TermConfig

EMPTY = np.zeros(0, np.int32)
INFO = FrameInfo("key", (0.0, 4.0), (56, 56), (56, 56), 5.0)
CLAIM = "<think>I see <obj>cup</obj><box>[1,2,30,40]</box>at<t>1.0</t>s</think><answer>left</answer>"
ANSWER = "<think>I see a cup.</think><answer>left</answer>"
INVALID = "<think>I see <obj>cup</obj><box>[1,2]</box>at<t>1.0</t>s</think><answer>left</answer>"
PROSE = "The cup is on the left."
SER = {"acc": TermConfig(use="accuracy"), "ser": TermConfig()}


def scored(text: str, *rewards: float, task: str = "a", last: str | None = None, **terms: list[float]) -> ScoredGroup:
    """A group of completions that all read `text`, but for the last one if `last` is given."""
    texts = [text] * (len(rewards) - 1) + [last or text]
    drawn = tuple(Trajectory(EMPTY, np.zeros(0, np.float32), ((0, 0, 0),), written, "stop") for written in texts)
    sample = Sample("s", "test", task, "Where?", "left", video_path="a.mp4")
    group = Group(0, sample, INFO, Prompt(EMPTY, EMPTY, EMPTY, EMPTY), drawn, 0)
    paid = {name: np.array(values, np.float32) for name, values in terms.items()}
    return ScoredGroup(group, np.array(rewards, np.float32), paid, paid, {}, ())


def warnings(*groups: ScoredGroup, steps: int = WATCHED_STEPS, baseline: bool = True, **reward: object) -> list[str]:
    """The warnings of a run of `steps` equal steps."""
    watch = LearningWatch(RewardConfig(**{"terms": SER, **reward}), baseline)
    given = (watch.step_ended(step, groups) for step in range(1, steps + 1))
    return [warning for warning in given if warning]


def test_equal_rewards_without_claims_are_a_policy_that_does_not_know_the_format() -> None:
    (warning,) = warnings(scored(PROSE, 0, 0), scored(PROSE, 1, 1))
    assert warning == (
        "the last 5 steps: in every group all completions got the same reward, so there is nothing to learn from; "
        "0 of 20 completions hold a claim; the policy has probably not learnt the format: warm-start it with `ser sft` "
        "(docs/sft.md)"
    )


def test_equal_rewards_with_claims_are_a_question_of_difficulty() -> None:
    (warning,) = warnings(scored(CLAIM, 2, 2))
    assert "the same reward" in warning
    assert "too easy or too hard" in warning
    assert "format" not in warning


def test_hardly_any_claim_is_reported_although_the_rewards_differ() -> None:
    (warning,) = warnings(scored(ANSWER, 0, 1), scored(INVALID, 0, 1))
    assert warning.startswith("the last 5 steps: 0 of 20 completions hold a claim; the policy has probably not learnt")
    few, enough = [scored(ANSWER, *range(32), last=CLAIM)], [scored(ANSWER, *range(20), last=CLAIM)]
    assert len(warnings(*few)) == 1, "a claim in 1 of 32 completions"
    assert warnings(*enough) == [], "a claim in 1 of 20 completions"


@pytest.mark.parametrize(
    "groups",
    [(scored(CLAIM, 0, 1), scored(CLAIM, 1, 1)), (scored(CLAIM, 1, 1), scored(CLAIM, 0, 0.5))],
    ids=["one group", "another one"],
)
def test_a_single_group_whose_rewards_differ_is_enough(groups: tuple[ScoredGroup, ...]) -> None:
    assert warnings(*groups, steps=20) == []


def test_a_step_with_differing_rewards_starts_the_count_again() -> None:
    watch = LearningWatch(RewardConfig(terms=SER), True)
    rewards = [(1, 1)] * (WATCHED_STEPS - 1) + [(0, 1)] + [(1, 1)] * WATCHED_STEPS
    given = [watch.step_ended(step, [scored(CLAIM, *pair)]) for step, pair in enumerate(rewards, 1)]
    assert [bool(warning) for warning in given] == [False] * (2 * WATCHED_STEPS - 1) + [True]


def test_the_warning_is_repeated_after_some_steps_only() -> None:
    assert len(warnings(scored(PROSE, 0, 0), steps=WATCHED_STEPS + REPEATED_AFTER - 1)) == 1
    assert len(warnings(scored(PROSE, 0, 0), steps=WATCHED_STEPS + REPEATED_AFTER)) == 2


def test_claims_are_expected_only_where_they_are_rewarded() -> None:
    assert warnings(scored(ANSWER, 0, 1), terms={"acc": TermConfig(use="accuracy")}) == []
    for_b = {"evidence": TermConfig(use="ser", tasks=["b"])}
    assert warnings(scored(ANSWER, 0, 1), terms=for_b) == []
    assert len(warnings(scored(ANSWER, 0, 1), scored(ANSWER, 0, 1, task="b"), terms=for_b)) == 1
    (warning,) = warnings(scored(PROSE, 0, 0), terms={"acc": TermConfig(use="accuracy")})
    assert "0 of 10 completions hold an answer; the policy has probably not learnt the format" in warning


def test_equal_rewards_teach_something_without_a_baseline_or_if_each_term_is_normalised() -> None:
    assert warnings(scored(CLAIM, 1, 1), baseline=False) == []
    cancelling = scored(CLAIM, 1, 1, acc=[0, 1], ser=[1, 0])
    assert warnings(cancelling, normalise="each") == []
    assert len(warnings(cancelling)) == 1
