"""What a step's rewards look like: the numbers logged of them, and the alarms for terms that keep being left out and
for a referee that no longer agrees with labelled boxes."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np

from evidence.errors import RunFailed
from evidence.geometry import nearest_frame
from evidence.types import ScoredGroup
from referee.reward.settings import RewardConfig
from referee.trust.agreement import AgreementConfig, AgreementWatch
from referee.trust.labelled_claims import asked_phrase, best_iou, moments_of

log = logging.getLogger(__name__)


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


def labelled_claims(groups: Iterable[ScoredGroup], ser: str) -> tuple[list[tuple[float, float]], float]:
    """(score, IoU with the asked object's labelled box) of every scored claim whose frame is labelled, and the mean
    r_SER, which is the term `ser`, of the completions about samples with labels; NaN where there is none."""
    claims: list[tuple[float, float]] = []
    rewards: list[np.ndarray] = []
    for scored in groups:
        sample, times = scored.group.sample, scored.group.frames.times
        asked, moments = asked_phrase(sample), moments_of(sample, scored.group.frames)
        if asked is None or not moments or ser not in scored.paid:
            continue
        rewards.append(scored.terms[ser])
        boxes = {moment.time: moment.items.get(asked, ()) for moment in moments}
        for one in (one for said in scored.evidence for one in said):
            shown = times[nearest_frame(times, one.claim.time or 0.0)]
            if shown in boxes and one.claim.box is not None:
                claims.append((one.score, best_iou(one.claim.box, boxes[shown])))
    return claims, float(np.concatenate(rewards).mean()) if rewards else math.nan


class RewardLog:
    """What is watched of the rewards, step by step."""

    def __init__(self, reward: RewardConfig, agreement: AgreementConfig):
        self._left_out, self._agreement = LeftOutWatch(reward), AgreementWatch(agreement)
        self._alarmed = False
        self._ser = next((name for name, term in reward.terms.items() if (term.use or name) == "ser"), "")

    def step(self, groups: Sequence[ScoredGroup]) -> dict[str, float]:
        """The metrics of a step. Raises TermsLeftOut. Warns when the referee and geometry begin to come apart."""
        self._left_out.see(groups)
        agreement = self._agreement.step(*labelled_claims(groups, self._ser))
        if agreement.alarm and not self._alarmed:
            log.warning("%s", agreement.alarm)
        self._alarmed = agreement.alarm is not None
        return reward_metrics(groups) | (agreement.metrics() if agreement.claims else {})


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
