"""Dynamic sampling and skipped steps in the real loop: which groups are replaced, and when a run is ended."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from fake_runs import GROUPS_PER_STEP, trained

from orchestration.loop.ledger import State
from orchestration.loop.rejections import MAX_DRAWS, NothingToLearn, TooManyRejected, no_variance
from referee.terms.view import GroupView


def test_groups_of_equal_reward_are_replaced_and_counted(tmp_path: Path) -> None:
    steps = 30
    run = trained(tmp_path, lambda group: group % 4 == 0, lambda group: False, steps)
    assert all(group % 4 == 0 for batch in run.parts.learner.batches for group in batch)
    assert all(len(batch) == GROUPS_PER_STEP for batch in run.parts.learner.batches)
    trained_groups = run.ledger.groups(State.TRAINED)
    assert len(trained_groups) == steps * GROUPS_PER_STEP
    # Three of four groups: far more than may be rejected for other reasons, and yet the run succeeds.
    equal = [group for group in range(max(trained_groups)) if group % 4]
    assert run.ledger.rejections()["zero_variance"] >= len(equal)
    assert all(run.ledger.entry(group).reason == "zero_variance" for group in equal)
    assert run.admission.free == run.config.pacing.slots
    # Training progress counts optimizer steps, however many groups were drawn for them.
    assert set(run.parts.pipeline.progress) == {step / steps for step in range(steps)}


def test_groups_of_skipped_steps_are_replaced_and_do_not_count_as_broken(tmp_path: Path) -> None:
    skips = cycle([True, True, False])
    run = trained(tmp_path, lambda group: True, lambda group: False, 20, skips=skips)
    assert [len(batch) for batch in run.parts.learner.batches] == [GROUPS_PER_STEP] * 20
    assert (run.admission.step, run.admission.version) == (20, 20)
    assert run.parts.learner.steps == sorted([*range(20)] * 3), "a skipped attempt does not count as a step"
    assert run.ledger.rejections() == {"not_finite": 2 * 20 * GROUPS_PER_STEP}
    assert run.admission.free == run.config.pacing.slots


def test_without_dynamic_sampling_groups_of_equal_reward_are_trained(tmp_path: Path) -> None:
    run = trained(tmp_path, lambda group: False, lambda group: False, 5, dynamic=False)
    assert run.parts.learner.batches == [(2 * step, 2 * step + 1) for step in range(5)]
    assert "zero_variance" not in run.ledger.rejections()


@pytest.mark.parametrize("good_steps", [0, 20])
def test_a_run_of_equal_rewards_is_ended_with_the_reason_even_after_good_steps(tmp_path: Path, good_steps: int) -> None:
    drawn: list[int] = []

    def varies(group: int) -> bool:
        drawn.append(group)
        return group < good_steps * GROUPS_PER_STEP

    with pytest.raises(NothingToLearn, match=r"algorithm\.dynamic_sampling") as ended:
        trained(tmp_path, varies, lambda group: False, 100)
    assert "\n" not in str(ended.value)
    slots = 2 * GROUPS_PER_STEP
    assert max(drawn) - good_steps * GROUPS_PER_STEP <= (MAX_DRAWS + 1) * GROUPS_PER_STEP + 2 * slots


def test_too_many_broken_groups_end_a_run(tmp_path: Path) -> None:
    with pytest.raises(TooManyRejected, match="'poison'"):
        trained(tmp_path, lambda group: True, lambda group: group % 4 != 0, 100)


def half_for_b(view: GroupView) -> list[float]:
    """A reward term: 0.5 for the answer B, else 0."""
    return [0.5 * ("<answer>B" in text) for text in view.texts]


def test_terms_normalised_separately_have_variance_though_their_sum_has_none(tmp_path: Path) -> None:
    # The reward is 1 for A and 2 * 0.5 for B, so all sums are equal.
    overrides = "reward.normalise=each", f"reward.terms.b.use={__name__}:half_for_b", "reward.terms.b.weight=2.0"
    run = trained(tmp_path, lambda group: group % 4 == 0, lambda group: False, 10, overrides=overrides)
    assert all(group % 4 == 0 for batch in run.parts.learner.batches for group in batch)
    assert run.ledger.rejections()["zero_variance"] >= 3 * 10


def test_terms_that_cancel_in_the_sum_still_count_as_variance() -> None:
    acc, ser = np.array([1, 1, 0, 0], np.float32), np.array([0, 0, 1, 1], np.float32)
    assert not no_variance(acc + ser, {"acc": acc, "ser": ser})
    assert not no_variance(acc, {"acc": acc})
    assert no_variance(2 * np.ones(4, np.float32), {"acc": np.ones(4, np.float32), "ser": np.ones(4, np.float32)})
