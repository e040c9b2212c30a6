"""The control of the quickstart: rewards that say nothing, and nothing else changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchestration.loop.learner_step import shuffled


@dataclass(frozen=True)
class Scored:
    rewards: np.ndarray
    terms: dict[str, np.ndarray]
    paid: dict[str, np.ndarray]


def test_each_group_keeps_its_rewards_in_another_order() -> None:
    rewards = np.arange(16, dtype=np.float32)
    groups = [Scored(rewards + 100 * g, {"ser": rewards}, {"ser": 2 * rewards}) for g in range(8)]
    dealt = shuffled(groups, seed=3)
    for group, after in zip(groups, dealt):
        assert sorted(after.rewards) == sorted(group.rewards), "no reward leaves its group"
        assert after.terms is group.terms
        assert (after.paid["ser"] == 2 * (after.rewards % 100)).all(), "what was paid goes with its reward"
    orders = [tuple(after.rewards - 100 * g) for g, after in enumerate(dealt)]
    assert len(set(orders)) == 8, "every group has an order of its own"
    assert tuple(rewards) not in orders
    assert [tuple(a.rewards) for a in shuffled(groups, seed=4)] != [tuple(a.rewards) for a in dealt]
