"""The quickstart's control: rewards permuted within each group, everything else unchanged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchestration.loop.learner_step import shuffled


@dataclass(frozen=True)
class Scored:
    rewards: np.ndarray
    terms: dict[str, np.ndarray]
    paid: dict[str, np.ndarray]


def test_each_group_keeps_its_rewards_in_a_new_order() -> None:
    rewards = np.arange(16, dtype=np.float32)
    groups = [Scored(rewards + 100 * g, {"ser": rewards}, {"ser": 2 * rewards}) for g in range(8)]
    permuted = shuffled(groups, seed=3)
    for group, after in zip(groups, permuted):
        assert sorted(after.rewards) == sorted(group.rewards), "no reward leaves its group"
        assert after.terms is group.terms
        assert (after.paid["ser"] == 2 * (after.rewards % 100)).all(), "the paid values move with their reward"
    orders = [tuple(after.rewards - 100 * g) for g, after in enumerate(permuted)]
    assert len(set(orders)) == 8, "every group has its own order"
    assert tuple(rewards) not in orders
    assert [tuple(a.rewards) for a in shuffled(groups, seed=4)] != [tuple(a.rewards) for a in permuted]
