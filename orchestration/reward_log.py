"""What a step's rewards look like: the numbers logged of them, and the alarm for terms that keep being left out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np

from evidence.errors import RunFailed
from evidence.types import ScoredGroup
from referee.reward.settings import RewardConfig


class TermsLeftOut(RunFailed):
    """Verdicts are missing so often that the reward no longer is the one asked for."""


def reward_metrics(groups: Sequence[ScoredGroup]) -> dict[str, float]:
    """Means over a step's completions: `reward`; of every term its raw value, over all tasks as `reward/TERM` and by
    task as `reward/TASK/TERM`, where it could be had; `reward/equal_groups`, the share of groups whose completions all
    got the same and so teach nothing."""
    rewards = [scored.rewards for scored in groups]
    by_task: dict[str, list[ScoredGroup]] = {}
    for scored in groups:
        by_task.setdefault(scored.group.sample.task, []).append(scored)
    metrics = {
        "reward": float(np.concatenate(rewards).mean()),
        "reward/equal_groups": float(np.mean([np.ptp(one) == 0 for one in rewards])),
    }
    for prefix, part in [("reward", groups), *((f"reward/{task}", part) for task, part in by_task.items())]:
        for name in part[0].terms:
            values = np.concatenate([scored.terms[name] for scored in part])
            if not np.isnan(values).all():
                metrics[f"{prefix}/{name}"] = float(np.nanmean(values))
    return metrics


class LeftOutWatch:
    """Stops a run in which too many groups lack a term of their reward."""

    def __init__(self, config: RewardConfig):
        self._most = config.max_left_out
        self._last: deque[bool] = deque(maxlen=config.watched)

    def see(self, groups: Iterable[ScoredGroup]) -> None:
        """Raises TermsLeftOut once the share among the last groups is above the limit, as soon as there are enough."""
        for scored in groups:
            self._last.append(len(scored.paid) < len(scored.terms))
        lacking = sum(self._last)
        if len(self._last) == self._last.maxlen and lacking > self._most * len(self._last):
            raise TermsLeftOut(
                f"{lacking} of the last {len(self._last)} groups lack a reward term for want of verdicts, more than "
                f"reward.max_left_out = {self._most:g} allows; evidence/missing and the referee's logs say more"
            )
