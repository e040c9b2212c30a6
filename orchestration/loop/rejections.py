"""Stops a run that rejects too many of the groups it draws.

A dataset may hold some broken videos, and some questions have no variance in reward for a while. A run in which most
groups are rejected is misconfigured, and is ended with the reason instead of being worked around. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from evidence.errors import RunFailed
from orchestration.loop.ledger import Ledger
from orchestration.pacing import Pacing

# Rejection reason of a group whose rewards are all equal: it has no advantage, and dynamic sampling replaces it.
ZERO_VARIANCE = "zero_variance"
# Rejection reason of a group whose step was skipped (orchestration/loop/skipped_steps limits skips in a row).
NOT_FINITE = "not_finite"
# The largest share of all groups begun that may be rejected for any other reason.
MAX_REJECTED_SHARE = 0.5
# The largest number of groups without variance per group that a step trains; DAPO's recipe in verl gives up after 10.
MAX_DRAWS = 10


class TooManyRejected(RunFailed):
    """More groups are rejected than trained."""


class NothingToLearn(RunFailed):
    """Nearly every group has equal rewards throughout."""


class RejectionWatch:
    """Counts rejections and stops a run in which too many groups are rejected."""

    def __init__(self, ledger: Ledger, pacing: Pacing, equal_before: int = 0):
        """`equal_before`: the groups without variance when the last step ended."""
        self.ledger, self.pacing, self.equal_before = ledger, pacing, equal_before

    def step_ended(self) -> None:
        self.equal_before = self._equal()

    def check(self) -> None:
        """Raises TooManyRejected, NothingToLearn."""
        rejections, begun, slots = self.ledger.rejections(), self.ledger.frontier, self.pacing.slots
        broken = sum(n for reason, n in rejections.items() if reason not in (ZERO_VARIANCE, NOT_FINITE))
        if broken > MAX_REJECTED_SHARE * begun + slots:
            raise TooManyRejected(f"{broken} of {begun} groups were rejected: {rejections}")
        equal = self._equal() - self.equal_before
        # Groups in flight when the last step ended do not count against this one: allow for all slots.
        if equal > MAX_DRAWS * self.pacing.groups_per_step + slots:
            raise NothingToLearn(
                f"{equal} groups since the last step had completions of equal reward, which give no advantage: the "
                "prompts are too easy or too hard for this policy, it has not learnt the format (docs/sft.md), or the "
                "reward does not tell its completions apart; change the data or the reward, warm-start the policy, or "
                "set algorithm.dynamic_sampling=false"
            )

    def _equal(self) -> int:
        return self.ledger.rejections().get(ZERO_VARIANCE, 0)


def no_variance(rewards: np.ndarray, paid: Mapping[str, np.ndarray]) -> bool:
    """Whether a group has no advantage: its `rewards`, float32 [G], are equal, and so are the values of every `paid`
    term. Terms that cancel in the sum still give advantages if each term is normalised separately."""
    return all(np.ptp(values) == 0 for values in (rewards, *paid.values()))
