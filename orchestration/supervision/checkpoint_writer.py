"""Saves checkpoints of a training run, beside the training.

Guarantees: a step waits only for the copy out; a checkpoint exists once its record does, which is written last and
after everything else is on disk; one that cannot be written (a full disk) costs neither the run nor the checkpoints
before it, is removed again, and is counted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evidence.errors import BadInput, RunFailed
from evidence.files import WRITE_ERRORS, sync
from learner.best_checkpoint import BEST, BestCheckpoint
from learner.checkpoints import (
    CheckpointConfig,
    Record,
    prune_checkpoints,
    record_of,
    remove_checkpoint,
    require_whole,
    try_to_remove,
)
from learner.zero.background_writer import Written
from orchestration.supervision.learner_gang import LearnerGang

log = logging.getLogger(__name__)


class CheckpointFailed(RunFailed):
    """A checkpoint that had to be written before the run ends could not be."""


class CheckpointWriter:
    """The checkpoints of a run in `folder`. `failed`: how many could not be written. `best`: the best one, if the run
    evaluates. To be called between steps."""

    def __init__(
        self,
        gang: LearnerGang,
        folder: Path,
        config: CheckpointConfig,
        last_step: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        best: BestCheckpoint | None = None,
    ):
        """`last_step`: the step of the newest whole checkpoint in the folder."""
        self.best = best or BestCheckpoint(folder, config)
        self.gang, self.folder, self.config, self.last_step, self._clock = gang, folder, config, last_step, clock
        self.failed = 0
        self.copy_s = self.write_s = 0.0  # of the last one: while training waited, and beside it
        self._last = clock()
        self._writing: tuple[int, Mapping[str, Any], Path] | None = None

    def due(self, step: int, last: bool) -> bool:
        """Whether a checkpoint is due after `step`; `last`: whether it is the run's last one."""
        config = self.config
        if step == self.last_step:
            return False
        if last:
            return config.wanted
        by_step = config.every is not None and step % config.every == 0
        return by_step or (config.minutes is not None and self._clock() - self._last >= 60 * config.minutes)

    def metrics(self) -> dict[str, float]:
        """How many could not be written so far; the step of the newest whole one, 0 without one; and for how long the
        last one held the training up and was written beside it, seconds."""
        return {
            "checkpoint/failed": self.failed,
            "checkpoint/step": self.last_step or 0,
            "checkpoint/copy_s": self.copy_s,
            "checkpoint/write_s": self.write_s,
        }

    def begin(self, step: int, state: Mapping[str, Any]) -> None:
        """Copy out the checkpoint of `step` and begin to write it, once the one before is written. `state`: the
        driver's, as data that JSON can represent."""
        self.finish()
        self._last = self._clock()
        record = record_of(self.folder, step)
        try:
            remove_checkpoint(record)  # left by an abandoned lineage, perhaps with more ranks
            record.with_suffix("").mkdir(parents=True)
            self._writing = step, {"step": step, **state}, record
            self.gang.save(record.with_suffix(""))
            self.copy_s = self._clock() - self._last
        except OSError as error:
            self._give_up(step, record, error)

    def poll(self) -> None:
        """Complete the checkpoint that is being written, if the ranks are done."""
        if self._writing is not None:
            self._complete(self.gang.saved(0.0))
        self._settle_best()

    def finish(self) -> None:
        """Wait until the checkpoint that is being written is whole, or has failed. Raises CheckpointFailed if that
        takes longer than limits.save_s."""
        began = time.monotonic()
        while self._writing is not None:
            if time.monotonic() > began + self.gang.limits.save_s:
                raise CheckpointFailed(
                    f"{self._writing[2]}: not written within {self.gang.limits.save_s:g} s (limits.save_s)"
                )
            self._complete(self.gang.saved(1.0))
        self._settle_best()

    def require(self, step: int) -> None:
        """Raises CheckpointFailed unless the newest whole checkpoint is of `step`."""
        if self.last_step != step:
            raise CheckpointFailed(f"{record_of(self.folder, step)}: the checkpoint could not be written; see above")

    def _complete(self, written: list[Written] | None) -> None:
        if self._writing is None or written is None:
            return
        step, state, record = self._writing
        try:
            for part in written:
                if part.error:
                    raise OSError(None, part.error)
            files = {name: size for part in written for name, size in part.files.items()}
            sync(record.with_suffix(""))
            made = self.gang.record(state, files)
            _require_seen(record, made)
            made.write(record)
        except OSError as error:
            self._give_up(step, record, error)
            return
        self._writing = None
        self.last_step = step
        self.write_s = max(part.seconds for part in written)
        prune_checkpoints(self.folder, self.config, self.best.kept)

    def _settle_best(self) -> None:
        """Record the best checkpoint, and remove those that it replaces. A disk that is full leaves the record of the
        one before."""
        try:
            if self.best.settle(None if self._writing is None else self._writing[0]):
                prune_checkpoints(self.folder, self.config, self.best.kept)
        except OSError as error:
            if error.errno not in WRITE_ERRORS:
                raise
            log.warning("%s: cannot be written (%s)", self.folder / BEST, error.strerror)

    def _give_up(self, step: int, record: Path, error: OSError) -> None:
        """Count and remove a checkpoint that cannot be written. Raises an error that is not about writing."""
        self._writing = None
        error = getattr(error, "cause", error)  # Ray wraps a rank's error in one without a number
        if error.errno is not None and error.errno not in WRITE_ERRORS:
            raise error
        self.gave_up(step, error.strerror or str(error))
        try_to_remove(record)

    def gave_up(self, step: int, reason: str) -> None:
        """Count the checkpoint of `step`, which cannot be written."""
        self.failed += 1
        self._last = self._clock()
        last = (
            "no checkpoint before it" if self.last_step is None else f"the last checkpoint is of step {self.last_step}"
        )
        log.warning("%s: cannot be written (%s); training goes on, %s", record_of(self.folder, step), reason, last)


def _require_seen(record: Path, made: Record) -> None:
    """Raises OSError if the ranks wrote to disks of their own, which a run that goes on could not read."""
    try:
        require_whole(record, made)
    except BadInput as error:
        raise OSError(None, f"{error}; the ranks must write to a disk that this machine sees, too") from None
