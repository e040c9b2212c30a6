"""Advantages of a step, each mode against numbers computed by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evidence.types import FrameInfo, Group, Prompt, Sample, ScoredGroup
from learner.advantages import DECAY, Advantages, group_advantages

INFO = FrameInfo("key", (0.0,), (56, 56), (56, 56), 1.0)
NONE = np.zeros(0, np.int32)


def scored(task: str = "a", weights: dict[str, float] | None = None, **paid: list[float]) -> ScoredGroup:
    sample = Sample("s", "test", task, "Where?", "left", video_path="a.mp4")
    group = Group(0, sample, INFO, Prompt(NONE, NONE, NONE, NONE), (), 0)
    values = {name: np.array(numbers, np.float32) for name, numbers in paid.items()}
    weights = weights or dict.fromkeys(values, 1.0)
    rewards = sum(weights[name] * values[name] for name in values)
    return ScoredGroup(group, np.asarray(rewards, np.float32), values, values, weights, ())


def test_the_sum_is_centred_and_divided_only_on_request():
    group = scored(x=[0, 1, 5], weights={"x": 2.0})
    (plain,) = Advantages("sum", divide_by_std=False).of_step([group])
    (divided,) = Advantages("sum", divide_by_std=True).of_step([group])
    assert plain.tolist() == [-4, -2, 6]
    assert divided == pytest.approx(np.array([-4, -2, 6]) / np.sqrt(28), rel=1e-3)  # sample variance 56 / 2


def test_with_each_a_term_counts_by_its_weight_and_not_by_its_spread():
    spread = scored(wide=[0, 100], narrow=[1, 0], weights={"wide": 1.0, "narrow": 3.0})
    constant = scored(wide=[5, 5], narrow=[0, 0])
    first, second = Advantages("each", divide_by_std=False).of_step([spread, constant])
    # Within the group both terms are +-1/sqrt 2, so the sum is (3 - 1)/sqrt 2; the batch's std is 1.
    assert first == pytest.approx([np.sqrt(2), -np.sqrt(2)], rel=1e-3)
    assert second.tolist() == [0, 0]


def test_with_each_the_steps_sums_are_divided_by_their_std():
    group = scored(x=[0, 1], weights={"x": 0.01})
    (advantages,) = Advantages("each", divide_by_std=False).of_step([group])
    normalised = 0.01 * 0.5 / (np.sqrt(0.5) + 1e-4)  # also the standard deviation of the two sums
    assert advantages == pytest.approx([-normalised / (normalised + 1e-4), normalised / (normalised + 1e-4)], rel=1e-5)
    assert advantages.dtype == np.float32


def test_with_each_a_group_without_a_paid_term_has_no_advantage():
    left_out = replace(scored(x=[0, 1]), paid={}, weights={})
    first, second = Advantages("each", divide_by_std=False).of_step([left_out, scored(x=[0, 1])])
    assert first.tolist() == [0, 0]
    assert second == pytest.approx([-np.sqrt(2), np.sqrt(2)], rel=1e-3)


def test_each_task_has_its_own_running_std():
    advantages = Advantages("task_std", divide_by_std=False)
    loud, quiet = scored("loud", x=[-10, 10]), scored("quiet", x=[-0.1, 0.1])
    assert [a[1] for a in advantages.of_step([loud, quiet])] == pytest.approx([1, 1], rel=2e-3)
    advantages.step_ended()
    (again,) = advantages.of_step([scored("loud", x=[-20, 20])])
    spread = np.sqrt((DECAY * 100 + 400) / (DECAY + 1))
    assert again[1] == pytest.approx(20 / spread, rel=1e-3)
    (flat,) = advantages.of_step([scored("loud", x=[3, 3])])
    assert flat.tolist() == [0, 0]


def test_the_first_group_of_a_task_has_no_more_weight_than_later_ones():
    advantages = Advantages("task_std", divide_by_std=False)
    (flat,) = advantages.of_step([scored(x=[0, 0, 0, 0])])
    advantages.step_ended()
    (second,) = advantages.of_step([scored(x=[0, 0, 0, 1])])
    assert flat.tolist() == [0, 0, 0, 0]
    # Both debiased moments are .25 / (1 + DECAY) = .1256, so the standard deviation is .3314.
    assert second == pytest.approx([-0.754, -0.754, -0.754, 2.262], abs=5e-4)
    (both,) = Advantages("task_std", divide_by_std=False).of_step([scored(x=[0, 0, 0, 0]), scored(x=[0, 0, 0, 1])])[1:]
    assert both.tolist() == second.tolist(), "one step or two"


def test_task_std_keeps_its_precision_far_from_zero():
    """In float32 the mean square of these rewards would be below the square of their mean."""
    advantages = Advantages("task_std", divide_by_std=False)
    advantages.step_ended()  # of a step without groups
    (far,) = advantages.of_step([scored(x=[10000, 10001])])
    assert far == pytest.approx([-1, 1], rel=1e-3)
    assert far.dtype == np.float32


def test_baselines():
    rewards = np.array([1.0, 2.0, 6.0], np.float32)
    assert group_advantages(rewards, False).tolist() == [-2, -1, 3]
    assert group_advantages(rewards.astype(np.float64), False).dtype == np.float32
    assert group_advantages(rewards, False, "rloo").tolist() == [1 - 4, 2 - 3.5, 6 - 1.5]
    assert group_advantages(rewards, False, "none").tolist() == [1, 2, 6]
    deviation = np.sqrt((4 + 1 + 9) / 2) + 1e-4
    assert group_advantages(rewards, True, "rloo") == pytest.approx(np.array([-3, -1.5, 4.5]) / deviation)
    assert (group_advantages(np.full(4, 0.7, np.float32), True) == 0).all(), "equal rewards carry no signal"
    (step,) = Advantages("sum", False, "rloo").of_step([scored(x=[1, 2, 6])])
    assert step.tolist() == [-3, -1.5, 4.5]


def test_a_skipped_step_leaves_the_running_std_unchanged():
    advantages, undisturbed = (Advantages("task_std", divide_by_std=False) for _ in range(2))
    steps = [[scored(x=[0, 2])], [scored(x=[0, 1])]]
    for run in (advantages, undisturbed):
        run.of_step(steps[0])
        run.step_ended()
    advantages.of_step([scored(x=[0, 1000])])  # skipped
    np.testing.assert_array_equal(advantages.of_step(steps[1]), undisturbed.of_step(steps[1]))


MODES = [("sum", False, "group"), ("sum", True, "group"), ("sum", False, "rloo"), ("each", False, "group")]


@pytest.mark.parametrize(("normalise", "divide_by_std", "baseline"), [*MODES, ("task_std", False, "group")])
def test_the_shares_of_the_terms_in_the_spread_add_up(normalise: str, divide_by_std: bool, baseline: str):
    advantages = Advantages(normalise, divide_by_std, baseline)
    groups = [scored(a=[0, 1, 3], b=[1, 0, 1], weights={"a": 1.0, "b": 2.0}), scored(a=[5, 5, 5], b=[0, 1, 0])]
    shares = advantages.term_shares(groups, advantages.of_step(groups))
    assert sum(shares.values()) == pytest.approx(1)
    assert all(share > 0.05 for share in shares.values())


def test_a_terms_share_is_its_covariance_with_the_advantage():
    advantages = Advantages("sum", divide_by_std=False)
    # Around their means 3 * (-1, 1) and -1 * (-1, 1), together 2 * (-1, 1): of its variance 4 the parts have 6 and -2.
    group = scored(pays=[0, 2], costs=[2, 0], weights={"pays": 3.0, "costs": 1.0})
    constant = scored(pays=[7, 7], costs=[1, 1], weights={"pays": 3.0, "costs": 1.0})
    shares = advantages.term_shares([group, constant], advantages.of_step([group, constant]))
    assert shares == pytest.approx({"pays": 1.5, "costs": -0.5})
    assert advantages.term_shares([constant], advantages.of_step([constant])) == {}


def test_a_large_group_counts_for_more_of_the_spread():
    advantages = Advantages("sum", divide_by_std=False)
    groups = [scored(a=[0, 3], b=[0, 0]), scored(a=[0, 0], b=[0, 1])]
    assert advantages.term_shares(groups, advantages.of_step(groups)) == pytest.approx({"a": 0.9, "b": 0.1})


def test_a_kl_penalty_is_missing_from_the_sum():
    advantages = Advantages("sum", divide_by_std=False)
    group = scored(a=[0, 2])
    penalised = replace(group, rewards=group.rewards - np.array([0, 1], np.float32))
    assert advantages.term_shares([penalised], advantages.of_step([penalised])) == pytest.approx({"a": 2.0})
