"""Advantages of a step's completions, computed from their rewards. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from evidence.types import ScoredGroup
from learner.algorithm import KL, KL_BOUND

EPSILON = 1e-4
# Decay of the running moments: they cover about the last hundred groups of a task.
DECAY = 0.99


def group_advantages(rewards: np.ndarray, divide_by_std: bool, baseline: str = "group") -> np.ndarray:
    """float32 [G] from rewards [G], G >= 2: r - baseline, optionally divided by std + 1e-4, with the sample std
    (Open-o3-Video, arXiv 2510.20579).

    baseline: `group`, the mean of the group (Dr.GRPO, arXiv 2503.20783); `rloo`, the mean of the others (arXiv
    2402.14740); `none`.
    Smooth verdicts are never quite equal. Where all completions of a group are equally right or wrong, dividing by the
    std therefore scales noise up to full-size advantages.
    """
    level = rewards.mean()
    if baseline == "rloo":
        level = (rewards.sum() - rewards) / (len(rewards) - 1)
    advantages = rewards if baseline == "none" else rewards - level
    return (advantages / (rewards.std(ddof=1) + EPSILON) if divide_by_std else advantages).astype(np.float32)


def _k3(k1: np.ndarray) -> np.ndarray:
    k1 = np.clip(k1, -KL_BOUND, KL_BOUND)
    return np.exp(-k1) + k1 - 1


# The estimators of learner/losses/kl.py on numpy arrays, by their names in learner/algorithm.ESTIMATORS: the sum over a
# completion, from k1 [C].
PENALTIES: dict[str, Callable[[np.ndarray], np.floating]] = {
    "k1": lambda k1: k1.sum(),
    "k2": lambda k1: np.square(k1).sum() / 2,
    "k3": lambda k1: _k3(k1).sum(),
}


def kl_penalised(
    rewards: np.ndarray, behaviour: Sequence[np.ndarray], reference: Sequence[np.ndarray], kl: KL
) -> np.ndarray:
    """float32 [G]: each completion's reward minus kl.coefficient times the sum of its tokens' divergence estimates.

    `behaviour`, `reference`: float32 [C] for each completion, its log-probs under the policy that drew it, which stands
    in for the current one, and under the reference.
    """
    k1 = [(drawn - held).astype(np.float64) for drawn, held in zip(behaviour, reference, strict=True)]
    sums = np.array([PENALTIES[kl.estimator](log_ratios) for log_ratios in k1])
    return (rewards - kl.coefficient * sums).astype(np.float32)


class Advantages:
    """Computes the advantages of a run's groups, step by step. `normalise`: as in RewardConfig. `divide_by_std` and
    `baseline`: as in AlgorithmConfig; they only apply to normalise = `sum`."""

    def __init__(self, normalise: str, divide_by_std: bool, baseline: str = "group"):
        self.normalise, self.divide_by_std, self.baseline = normalise, divide_by_std, baseline
        # task -> decayed sums of weight, mean and mean square of its groups: after the last step, and with this one.
        self._moments: dict[str, tuple[float, float, float]] = {}
        self._with_step = self._moments

    def of_step(self, groups: Sequence[ScoredGroup]) -> list[np.ndarray]:
        """float32 [G] for each group of a step, in order.

        `sum`: group_advantages of the rewards. `each` (GDPO, arXiv 2601.05242): each paid term is normalised within
        its group, the terms are summed by their weights, and the step's sums are divided by their standard deviation
        (their mean is 0 already). `task_std`: rewards centred in their group, divided by the running standard deviation
        of their task (EMA-GRPO; our reading: exponential moving averages of the rewards' first two moments, updated
        group by group, this step included, and divided by the sum of their weights, as Adam debiases its moments: arXiv
        1412.6980, section 3). The moments are kept only once `step_ended` is called.
        """
        if self.normalise == "each":
            return _each(groups)
        if self.normalise == "task_std":
            self._with_step = dict(self._moments)
            for scored in groups:
                self._update_moments(scored.group.sample.task, scored.rewards)
            return [
                (group_advantages(s.rewards, False) / (self._std(s.group.sample.task) + EPSILON)).astype(np.float32)
                for s in groups
            ]
        return [group_advantages(scored.rewards, self.divide_by_std, self.baseline) for scored in groups]

    def term_shares(self, groups: Sequence[ScoredGroup], advantages: Sequence[np.ndarray]) -> dict[str, float]:
        """The share of each paid term in the spread of a step's advantages within their groups; empty without spread.

        An advantage is a sum over the terms, up to a factor of its group. A term's share is the covariance of its part
        with the whole, over the variance of the whole. The shares add up to 1; a term that works against the others has
        a negative one. What a KL penalty has taken off the rewards is no term, and is missing from the sum.
        """
        shares: dict[str, float] = {}
        total = 0.0
        for scored, of_group in zip(groups, advantages, strict=True):
            spread = of_group - of_group.mean()
            parts = {
                name: scored.weights[name] * group_advantages(values, self.normalise == "each")
                for name, values in scored.paid.items()
            }
            whole = scored.rewards - scored.rewards.mean()
            if self.normalise == "each":
                whole = sum(parts.values(), np.zeros_like(spread))
            size = float(whole @ whole)
            factor = float(spread @ whole) / size if size else 0.0
            total += float(spread @ spread)
            for name, part in parts.items():
                shares[name] = shares.get(name, 0.0) + factor * float(part @ spread)
        return {name: share / total for name, share in shares.items()} if total else {}

    def step_ended(self) -> None:
        """Keep the moments of the step. Do not call it for a skipped step, which must leave no trace."""
        self._moments = self._with_step

    @property
    def moments(self) -> dict[str, list[float]]:
        """The running moments after the last step, by task, as data that JSON can represent."""
        return {task: list(moments) for task, moments in self._moments.items()}

    def restore(self, moments: Mapping[str, Sequence[float]]) -> None:
        """Go on from the `moments` of another run."""
        self._moments = {task: (weight, mean, square) for task, (weight, mean, square) in moments.items()}
        self._with_step = self._moments

    def _update_moments(self, task: str, rewards: np.ndarray) -> None:
        new = 1.0, float(rewards.mean()), float(np.square(rewards, dtype=np.float64).mean())
        before = self._with_step.get(task, (0.0, 0.0, 0.0))
        weight, mean, square = (DECAY * decayed + value for decayed, value in zip(before, new))
        self._with_step[task] = weight, mean, square

    def _std(self, task: str) -> float:
        weight, mean, square = self._with_step[task]
        return max(0.0, square / weight - (mean / weight) ** 2) ** 0.5


def _each(groups: Sequence[ScoredGroup]) -> list[np.ndarray]:
    sums = [
        sum(
            (scored.weights[name] * group_advantages(values, True) for name, values in scored.paid.items()),
            np.zeros(len(scored.rewards), np.float32),
        )
        for scored in groups
    ]
    spread = float(np.concatenate(sums).std()) + EPSILON
    return [(group_sums / spread).astype(np.float32) for group_sums in sums]
