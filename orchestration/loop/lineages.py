"""Going back to a checkpoint: when a run is resumed, and when its learner is lost while it runs (promise 3).

Guarantee: the restored weights are published under a version above all that the run has ever reached, before a token of
the new lineage is drawn; what happened after the checkpoint is void in the journal, the metrics and the samples.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from pathlib import Path

from evidence.errors import RunFailed
from learner.checkpoints import Record, step_of
from orchestration.loop.journal import Journal
from orchestration.loop.ledger import Ledger
from orchestration.loop.parts import Parts
from orchestration.loop.run_state import RunState
from orchestration.resuming import CHECKPOINTS, drop_later, newest_whole
from orchestration.supervision.waiting import ActorLost

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lineage:
    """Where a lineage begins: the state of the run, and its ledger. saved_step: the step of the checkpoint that it
    begins from, if it does. losses: how often in a row the loss of the learner has led back to it."""

    state: RunState
    ledger: Ledger
    saved_step: int | None = None
    losses: int = 0


def first(journal: Journal) -> Lineage:
    """The lineage of a run that starts afresh."""
    return Lineage(RunState(), Ledger(journal.move))


async def back_to(record: Path | None, run_dir: Path, parts: Parts, journal: Journal, publish_s: float) -> Lineage:
    """Begin a new lineage from the checkpoint of `record`, None for the initial weights, which the ranks hold. The
    checkpoints after it are removed, once it has been loaded.

    Raises BadInput for a checkpoint of another model, and ActorLost.
    """
    state = RunState()
    if record is not None:
        state = RunState.of(Record.read(record).state, str(record))
        await asyncio.to_thread(parts.learner.gang.load, record)
    # Before the journal says so: a later start must not find a checkpoint of a lineage that the journal has voided.
    await asyncio.to_thread(drop_later, run_dir, state.step)
    before = journal.reached
    state = state.restarted(max(before.version, state.version) + 1)
    ledger = Ledger.restore(state.ledger, journal.move)
    journal.lineage(before.lineages, state.step, state.version)
    ledger.fork(before.lineages, before.frontier)
    await parts.publish(state.version, publish_s)
    return Lineage(state, ledger, None if record is None else state.step)


async def relearn(
    error: ActorLost, lost: Lineage, run_dir: Path, parts: Parts, journal: Journal, publish_s: float
) -> Lineage:
    """Start the ranks of the learner again, which the lineage `lost` has lost by `error`, and go back to the last
    checkpoint.

    Raises RunFailed once they were lost more often than limits.restarts_per_hour allows, within an hour or without
    reaching another checkpoint: a step that kills them each time would be repeated for ever. Raises BadInput if no
    checkpoint can be read.
    """
    restarts, losses, begun_from = parts.learner_restarts, lost.losses, lost.saved_step
    while True:
        if restarts.blocked_s():
            raise RunFailed(f"{error}; the learner was restarted {restarts.per_hour} times within an hour already")
        record = newest_whole(run_dir / CHECKPOINTS)
        step = None if record is None else step_of(record)
        losses, begun_from = (losses + 1 if step == begun_from else 1), step
        since = "the initial weights" if step is None else f"the checkpoint of step {step}"
        if losses > restarts.per_hour:
            raise RunFailed(f"{error}; the learner was lost {losses} times in a row after {since}, before the next one")
        log.warning("%s; the learner is restarted from %s", error, since)
        pause_s = restarts.pause_s()
        restarts.begin()
        await asyncio.sleep(pause_s)
        try:
            await asyncio.to_thread(parts.restart_learner)
            # Removes unfinished checkpoints, too, which the lost ranks no longer write.
            lineage = await back_to(record, run_dir, parts, journal, publish_s)
            restarts.ready()
            return replace(lineage, losses=losses)
        except ActorLost as again:
            error = again
