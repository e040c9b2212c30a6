"""Advantages: how the rewards of a step become what each completion is pushed by. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evidence.types import ScoredGroup
from learner.algorithm import KL, KL_BOUND

EPSILON = 1e-4
# Of the running moments: about the last hundred groups of a task.
DECAY = 0.99


def group_advantages(rewards: np.ndarray, divide_by_std: bool, baseline: str = "group") -> np.ndarray:
    """float32 [G] from rewards [G], G >= 2: r - baseline, or that over std + 1e-4, sample std (Open-o3-Video, arXiv
    2510.20579).

    baseline: `group`, its mean (Dr.GRPO, arXiv 2503.20783); `rloo`, the mean of the others (arXiv 2402.14740); `none`.
    Smooth verdicts never are quite equal, so dividing makes full-size advantages of noise wherever a whole group is
    right, or wrong, alike.
    """
    against = rewards.mean()
    if baseline == "rloo":
        against = (rewards.sum() - rewards) / (len(rewards) - 1)
    advantages = rewards if baseline == "none" else rewards - against
    return (advantages / (rewards.std(ddof=1) + EPSILON) if divide_by_std else advantages).astype(np.float32)


def kl_penalised(
    rewards: np.ndarray, behaviour: Sequence[np.ndarray], reference: Sequence[np.ndarray], kl: KL
) -> np.ndarray:
    """float32 [G]: each completion's reward less kl.coefficient times the sum of its tokens' estimates of divergence.

    `behaviour`, `reference`: float32 [C] of each completion, its log-probs under the policy that drew it, which stands
    for the current one, and under the reference. Estimators as in learner/losses/kl.py.
    """
    k1 = [(mine - theirs).astype(np.float64) for mine, theirs in zip(behaviour, reference, strict=True)]
    bounded = [np.clip(one, -KL_BOUND, KL_BOUND) for one in k1]
    sums = {
        "k1": lambda: [one.sum() for one in k1],
        "k2": lambda: [np.square(one).sum() / 2 for one in k1],
        "k3": lambda: [(np.exp(-one) + one - 1).sum() for one in bounded],
    }
    return (rewards - kl.coefficient * np.array(sums[kl.estimator]())).astype(np.float32)


class Advantages:
    """The advantages of a run's groups, step by step. `normalise`: as in RewardConfig; the rest as in AlgorithmConfig,
    and only for normalise = `sum`."""

    def __init__(self, normalise: str, divide_by_std: bool, baseline: str = "group"):
        self.normalise, self.divide_by_std, self.baseline = normalise, divide_by_std, baseline
        # task -> running mean and mean square of its rewards: at the end of the last step, and with the present one's.
        self._moments: dict[str, tuple[float, float]] = {}
        self._with_step = self._moments

    def of_step(self, groups: Sequence[ScoredGroup]) -> list[np.ndarray]:
        """float32 [G] for each group of a step, in order.

        `sum`: group_advantages of the rewards. `each` (GDPO, arXiv 2601.05242): each term paid is normalised within
        its group, these are summed by their weights, and the step's sums divided by their standard deviation (their
        mean is 0 already). `task_std`: rewards centred in their group, over the running standard deviation of their
        task (EMA-GRPO; our reading: exponential moving averages of the rewards' first two moments, group by group,
        this step's included). They move when the step has ended.
        """
        if self.normalise == "each":
            return _each(groups)
        if self.normalise == "task_std":
            self._with_step = dict(self._moments)
            for scored in groups:
                self._watch(scored.group.sample.task, scored.rewards)
            return [
                (group_advantages(s.rewards, False) / (self._std(s.group.sample.task) + EPSILON)).astype(np.float32)
                for s in groups
            ]
        return [group_advantages(scored.rewards, self.divide_by_std, self.baseline) for scored in groups]

    def step_ended(self) -> None:
        """To be called unless the step was skipped, as if it had never been."""
        self._moments = self._with_step

    def _watch(self, task: str, rewards: np.ndarray) -> None:
        new = float(rewards.mean()), float(np.square(rewards, dtype=np.float64).mean())
        old = self._with_step.get(task, new)
        self._with_step[task] = (DECAY * old[0] + (1 - DECAY) * new[0], DECAY * old[1] + (1 - DECAY) * new[1])

    def _std(self, task: str) -> float:
        mean, square = self._with_step[task]
        return max(0.0, square - mean * mean) ** 0.5


def _each(groups: Sequence[ScoredGroup]) -> list[np.ndarray]:
    sums = [
        sum(
            (scored.weights[name] * group_advantages(values, True) for name, values in scored.paid.items()),
            np.zeros(len(scored.rewards), np.float32),
        )
        for scored in groups
    ]
    spread = float(np.concatenate(sums).std()) + EPSILON
    return [(one / spread).astype(np.float32) for one in sums]
