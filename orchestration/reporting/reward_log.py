"""Reward metrics of a step, the end of a run whose terms are left out too often, and a watch on whether the referee
still agrees with labelled boxes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from evidence.errors import RunFailed
from evidence.geometry import nearest_frame
from evidence.types import ScoredGroup
from referee.reward.settings import RewardConfig
from referee.trust.agreement import AgreementConfig, AgreementWatch
from referee.trust.labelled_claims import asked_phrase, best_iou, moments_of


class TermsLeftOut(RunFailed):
    """So many verdicts are missing that the reward is no longer the configured one."""


def reward_metrics(groups: Sequence[ScoredGroup]) -> dict[str, float]:
    """Means over a step's completions.

    `reward`; `reward/TERM` over all tasks and `reward/TASK/TERM` by task, the raw value of each term where it is known;
    `reward/equal_groups`, the share of groups whose completions all got the same reward, which have no advantage.
    """
    rewards = [scored.rewards for scored in groups]
    by_task: dict[str, list[ScoredGroup]] = {}
    for scored in groups:
        by_task.setdefault(scored.group.sample.task, []).append(scored)
    metrics = {
        "reward": float(np.concatenate(rewards).mean()),
        "reward/equal_groups": float(np.mean([np.ptp(group_rewards) == 0 for group_rewards in rewards])),
    }
    for prefix, part in [("reward", groups), *((f"reward/{task}", part) for task, part in by_task.items())]:
        for name in part[0].terms:
            values = np.concatenate([scored.terms[name] for scored in part])
            if not np.isnan(values).all():
                metrics[f"{prefix}/{name}"] = float(np.nanmean(values))
    return metrics


def labelled_claims(groups: Iterable[ScoredGroup], ser: str) -> tuple[list[tuple[float, float]], float]:
    """The pair (score, IoU with the labelled box of the object asked about) of every scored claim on a labelled frame;
    and the mean r_SER (the term named `ser`) over the completions of labelled samples, NaN without any."""
    claims: list[tuple[float, float]] = []
    rewards: list[np.ndarray] = []
    for scored in groups:
        sample, times = scored.group.sample, scored.group.frames.times
        phrase, moments = asked_phrase(sample), moments_of(sample, scored.group.frames)
        if phrase is None or not moments or ser not in scored.paid:
            continue
        rewards.append(scored.terms[ser])
        boxes = {moment.time: moment.items.get(phrase, ()) for moment in moments}
        for claim_score in chain.from_iterable(scored.evidence):
            frame_time = times[nearest_frame(times, claim_score.claim.time or 0.0)]
            if frame_time in boxes and claim_score.claim.box is not None:
                claims.append((claim_score.score, best_iou(claim_score.claim.box, boxes[frame_time])))
    return claims, float(np.concatenate(rewards).mean()) if rewards else math.nan


class RewardLog:
    """Reward metrics, step by step. `alarm`: why the referee's agreement with labelled boxes is doubted, if it is."""

    def __init__(self, reward: RewardConfig, agreement: AgreementConfig):
        self._left_out, self._agreement = LeftOutWatch(reward), AgreementWatch(agreement)
        self.alarm: str | None = None
        self._ser = next((name for name, term in reward.terms.items() if (term.use or name) == "ser"), "")

    def step(self, groups: Sequence[ScoredGroup]) -> dict[str, float]:
        """The metrics of a step. Raises TermsLeftOut."""
        self._left_out.see(groups)
        agreement = self._agreement.step(*labelled_claims(groups, self._ser))
        self.alarm = agreement.alarm
        return reward_metrics(groups) | (agreement.metrics() if agreement.claims else {})

    @property
    def state(self) -> dict[str, Any]:
        """The windows of both watches, as data that JSON can represent."""
        return {"left_out": self._left_out.last, "agreement": self._agreement.state}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from the `state` of another run."""
        self._left_out.last = state["left_out"]
        self._agreement.restore(state["agreement"])


class LeftOutWatch:
    """Stops a run in which too many groups lack a reward term."""

    def __init__(self, config: RewardConfig):
        self._most = config.max_left_out
        self._last: deque[bool] = deque(maxlen=config.watched)

    @property
    def last(self) -> list[bool]:
        """Whether each of the last groups lacked a term."""
        return list(self._last)

    @last.setter
    def last(self, lacked: Sequence[bool]) -> None:
        self._last.extend(lacked)

    def see(self, groups: Iterable[ScoredGroup]) -> None:
        """Raises TermsLeftOut once the watch is full and the share of such groups in it is above the limit."""
        for scored in groups:
            self._last.append(len(scored.paid) < len(scored.terms))
        lacking = sum(self._last)
        if len(self._last) == self._last.maxlen and lacking > self._most * len(self._last):
            raise TermsLeftOut(
                f"{lacking} of the last {len(self._last)} groups lack a reward term because verdicts are missing, more "
                f"than reward.max_left_out = {self._most:g} allows; see evidence/missing and the referee's logs"
            )
