"""When too much of what is drawn is not trained on.

A data set may hold broken videos, and some questions teach nothing at a time; a run that mostly meets such is a mistake
to be told, not worked around. Whether it is one, this module says; pure.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from evidence.errors import RunFailed
from orchestration.loop.ledger import Ledger
from orchestration.pacing import Pacing

# The reason of a group whose rewards are all equal: it has no advantage, and dynamic sampling takes another prompt.
ZERO_VARIANCE = "zero_variance"
# The reason of a group whose step was skipped (orchestration/loop/skipped_steps stops a run in which that goes on).
NOT_FINITE = "not_finite"
# Share of all groups begun that may end rejected for another reason.
MAX_REJECTED_SHARE = 0.5
# Of what a step trains, so often may groups without variance be drawn for it: DAPO's recipe in verl gives up after 10.
MAX_DRAWS = 10


class TooManyRejected(RunFailed):
    """More groups end rejected than trained."""


class NothingToLearn(RunFailed):
    """Nearly every group's rewards are all equal."""


class RejectionWatch:
    """Stops a run that is hardly trained by what it draws."""

    def __init__(self, ledger: Ledger, pacing: Pacing):
        self.ledger, self.pacing = ledger, pacing
        self._equal_before = 0  # groups without variance as the last step ended

    def step_ended(self) -> None:
        self._equal_before = self._equal()

    def check(self, begun: int) -> None:
        """`begun`: groups so far. Raises TooManyRejected, NothingToLearn."""
        rejections, slots = self.ledger.rejections(), self.pacing.slots
        broken = sum(n for reason, n in rejections.items() if reason not in (ZERO_VARIANCE, NOT_FINITE))
        if broken > MAX_REJECTED_SHARE * begun + slots:
            raise TooManyRejected(f"{broken} of {begun} groups were rejected: {rejections}")
        equal = self._equal() - self._equal_before
        # What was under way as the step ended is no draw of this one.
        if equal > MAX_DRAWS * self.pacing.groups_per_step + slots:
            raise NothingToLearn(
                f"{equal} groups since the last step had completions of equal reward, and so nothing to learn from: "
                "the prompts are too easy or too hard for this policy, or the reward does not tell its completions "
                "apart; change them, or set algorithm.dynamic_sampling to false"
            )

    def _equal(self) -> int:
        return self.ledger.rejections().get(ZERO_VARIANCE, 0)


def no_variance(rewards: np.ndarray, paid: Mapping[str, np.ndarray]) -> bool:
    """Whether a group teaches nothing: its rewards are equal, float32 [G], and so is each term of them that was `paid`,
    since terms that cancel in the sum still push where each is normalised by itself."""
    return all(np.ptp(values) == 0 for values in (rewards, *paid.values()))
