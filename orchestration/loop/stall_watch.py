"""Says on stderr who waits for whom whenever no group has ended for a quarter of `limits.stall_s`.

Nothing has to be stopped: without groups under way or ready, the watch is silent until the next group ends.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from orchestration.loop.admission import Admission
from orchestration.loop.pipeline import Pipeline
from orchestration.reporting.display import clock
from orchestration.reporting.stalls import Facts, GroupFacts, Stage, report

if TYPE_CHECKING:
    from orchestration.loop.group_maker import ReadyGroup

QUARTERS = 4

log = logging.getLogger(__name__)


class StallWatch:
    """To be used from one event loop. `enter` is to be called by the group's own task, by which the pool knows
    it. `tell`: called with each report that stderr gets."""

    def __init__(self, pipeline: Pipeline, admission: Admission, ready: Callable[[], Mapping[int, ReadyGroup]]):
        """`ready`: returns the groups that are ready."""
        self._pipeline, self._admission, self._ready = pipeline, admission, ready
        self._stages: dict[int, tuple[Stage, float, asyncio.Task[Any] | None]] = {}
        self._learner = ("waits for groups", time.monotonic())
        self._timer: asyncio.TimerHandle | None = None
        self._quarter_s, self._quarters = 0.0, 0
        self.tell: Callable[[str], object] = lambda report: None

    def enter(self, group: int, stage: Stage) -> None:
        """The group waits for the next thing."""
        self._stages[group] = (stage, time.monotonic(), asyncio.current_task())

    def leave(self, group: int) -> None:
        """The group ended."""
        del self._stages[group]
        self._pipeline.group_ends.note(time.monotonic())
        if self._quarter_s:
            self._begin_anew()

    def learner_waits(self, limit_s: float) -> None:
        """The learner begins to wait for a group to end. `limit_s`: limits.stall_s."""
        self._learner = ("waits for groups", time.monotonic())
        if not self._quarter_s:
            self._quarter_s = limit_s / QUARTERS
            self._pipeline.group_ends.note(time.monotonic())
            self._begin_anew()

    def learner_waited(self) -> None:
        """The learner goes on."""
        self._learner = ("takes a step, publishes or saves", time.monotonic())

    def report(self) -> str:
        """Who waits for whom, a line each."""
        admission, pipeline = self._admission, self._pipeline
        groups = [GroupFacts(group, *self._place(group)) for group in self._stages]
        groups += [GroupFacts(group, Stage.TRAINING, ready.asking[1]) for group, ready in self._ready().items()]
        facts = Facts(
            groups=sorted(groups, key=lambda facts: facts.group),
            anchor=admission.anchor,
            needed=admission.pacing.groups_per_step,
            oldest_startable=admission.oldest_startable,
            engines=pipeline.rollout_pool.engine_facts(),
            referees=pipeline.referee.facts(),
            no_room=pipeline.store.no_room,
            learner=self._learner,
        )
        return report(facts, time.monotonic())

    def _place(self, group: int) -> tuple[Stage, float, str | None]:
        stage, since, task = self._stages[group]
        if stage is Stage.ENGINE and (running := self._pipeline.rollout_pool.running(task)) is not None:
            return Stage.COMPLETIONS, *running
        return stage, since, None

    def _begin_anew(self) -> None:
        self._quarters = 0
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._quarter_s, self._quarter_ended)

    def _quarter_ended(self) -> None:
        if not (self._stages or self._ready()):
            return
        self._quarters += 1
        if self._quarters % QUARTERS:  # after the last one, the error that ends the wait says the same
            stalled = f"no group has ended for {clock(self._quarters * self._quarter_s)}:\n{self.report()}"
            log.warning("%s", stalled)
            self.tell(stalled)
        self._set_timer()
