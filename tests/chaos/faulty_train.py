"""`ser train` with faults: python tests/chaos/faulty_train.py PLAN.json train CONFIG KEY=VALUE...

Runs orchestration.cli.main in this process, the driver, after wrapping the functions that mark the phases of training,
so that the product needs no hooks. To be run from the root of the repository, with PYTHONPATH=.:tests (see faults.py).
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults import Faults, is_loading

from orchestration import cli
from orchestration.loop.learner_step import Learner
from orchestration.loop.ledger import Ledger
from orchestration.loop.parts import Parts
from orchestration.loop.training import Training
from orchestration.reporting.steps import StepReport
from orchestration.supervision.checkpoint_writer import CheckpointWriter
from orchestration.supervision.learner_gang import LearnerGang
from orchestration.supervision.referee_pool import Referee
from orchestration.supervision.rollout_pool import RolloutPool


def mark_phases(faults: Faults) -> None:
    """Wrap the functions that phases consist of."""
    _in_phase(faults, RolloutPool, "generate", "generating")
    _in_phase(faults, Referee, "verify", "scoring")
    _in_phase(faults, Learner, "train", "assembling")
    _in_phase(faults, LearnerGang, "train_step", "in the step")
    _in_phase(faults, Parts, "publish", "gathering")
    _in_phase(faults, RolloutPool, "update", "publishing", is_loading)
    _in_phase(faults, CheckpointWriter, "begin", "checkpointing", lambda writer: writer._writing is not None)
    _afterwards(Training, "__init__", lambda training, *_: faults.training_began(training))
    _afterwards(StepReport, "step_ended", lambda report, step, *_: faults.step_ended(step))
    _count_lost_work(faults)


def _in_phase(faults: Faults, cls: type, name: str, phase: str, under_way: Callable[[Any], bool] | None = None) -> None:
    inner = getattr(cls, name)

    def about(owner: Any) -> Callable[[], bool] | None:
        return under_way and functools.partial(under_way, owner)

    @functools.wraps(inner)
    async def later(self: Any, *args: Any, **kwargs: Any) -> Any:
        with faults.phase(phase, about(self)):
            return await inner(self, *args, **kwargs)

    @functools.wraps(inner)
    def now(self: Any, *args: Any, **kwargs: Any) -> Any:
        with faults.phase(phase, about(self)):
            return inner(self, *args, **kwargs)

    setattr(cls, name, later if inspect.iscoroutinefunction(inner) else now)


def _afterwards(cls: type, name: str, call: Callable[..., object]) -> None:
    """Make the method call `call` with its arguments once it has returned."""
    inner = getattr(cls, name)

    @functools.wraps(inner)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        value = inner(self, *args, **kwargs)
        call(self, *args, **kwargs)
        return value

    setattr(cls, name, wrapped)


def _count_lost_work(faults: Faults) -> None:
    """Count the groups that are requeued, and those that are regenerated since their lineage was abandoned."""
    fork = Ledger.fork

    def requeued(ledger: Ledger, *_: Any) -> None:
        faults.requeued += 1

    def forked(self: Ledger, *args: Any, **kwargs: Any) -> None:
        before = self.requeues["regenerated"]
        fork(self, *args, **kwargs)
        faults.regenerated += self.requeues["regenerated"] - before

    _afterwards(Ledger, "requeue", requeued)
    Ledger.fork = forked  # type: ignore[method-assign]


if __name__ == "__main__":
    mark_phases(Faults(Path(sys.argv[1])))
    sys.exit(cli.main(sys.argv[2:]))
