"""Steps that were skipped because the loss or a gradient was not finite: each is logged, a few in a row are allowed."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from evidence.errors import RunFailed

log = logging.getLogger(__name__)

MOST_NAMED = 4


class SkippedSteps:
    """Counts skipped steps. `most`: the number of skips in a row that ends the run, since more would not recover."""

    def __init__(self, most: int, total: int = 0, in_a_row: int = 0):
        """`total`, `in_a_row`: of the run so far."""
        self.most, self.total, self.in_a_row = most, total, in_a_row

    def count(self, metrics: dict[str, float], step: str) -> bool:
        """Whether the step with these metrics (of `LearnerGang.train_step`) was skipped. `step`: names the step and its
        data in the log. Raises RunFailed at the `most`-th skip in a row."""
        if not metrics["skipped"]:
            self.in_a_row = 0
            return False
        self.in_a_row += 1
        self.total += 1
        problem = f"{step}: loss or gradient is not finite (loss {metrics['loss']:g})"
        if self.in_a_row == self.most:
            raise RunFailed(f"{problem}, in {self.most} steps in a row: is the learning rate too high?")
        log.warning("%s; the step is skipped", problem)
        return True


def shortened_list(names: Sequence[str]) -> str:
    """The names as text: all of a few; of many, the first ones and the number of the others."""
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
