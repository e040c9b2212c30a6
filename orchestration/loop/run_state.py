"""The state of a run besides the learner's, as a checkpoint holds it: plain data that JSON can represent (promise 3).

Guarantee: a run that goes on from it trains the groups that an undisturbed run would have trained. Groups that were
ready keep their trajectories and rewards; those in flight are begun again, in the same places of the queue.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from evidence.codec import decode, encode
from evidence.errors import BadInput
from evidence.types import ScoredGroup
from orchestration.loop.ledger import Ledger


@dataclass(frozen=True)
class RunState:
    """step: optimizer steps along the surviving lineage. version: of the weights after it. restarts: as in Admission.
    ledger: Ledger.snapshot. queue: the groups admitted and not trained, in the order of their admission. ready: those
    that are ready, encoded ScoredGroups by group. moments: Advantages.moments. skipped: the skipped steps in all, and
    in a row. equal_before: RejectionWatch.equal_before. report: StepReport.state. data: SHA-256 of each dataset file.
    evaluating: step and version of the weights that are being evaluated, if any are.
    """

    step: int = 0
    version: int = 0
    restarts: list[list[int]] = field(default_factory=list)
    ledger: dict[str, Any] = field(default_factory=lambda: Ledger().snapshot())
    queue: list[int] = field(default_factory=list)
    ready: dict[str, Any] = field(default_factory=dict)
    moments: dict[str, list[float]] = field(default_factory=dict)
    skipped: list[int] = field(default_factory=lambda: [0, 0])
    equal_before: int = 0
    report: dict[str, Any] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    evaluating: list[int] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, data: Mapping[str, Any], source: str) -> RunState:
        """The state that `plain` returned. Raises BadInput, which names the `source`, for any other data."""
        if set(data) != {entry.name for entry in fields(cls)}:
            raise BadInput(f"{source}: not the checkpoint of a `ser train` run; its state has {', '.join(data)}")
        return cls(**data)

    def restarted(self, version: int) -> RunState:
        """This state with its weights published under the new `version`."""
        return RunState(**{**vars(self), "version": version, "restarts": [*self.restarts, [self.version, version]]})

    def ready_groups(self) -> dict[int, ScoredGroup]:
        """Raises BadInput."""
        return {int(group): decode(ScoredGroup, data) for group, data in self.ready.items()}


def encoded(ready: Mapping[int, ScoredGroup]) -> dict[str, Any]:
    """Ready groups as `RunState.ready`."""
    return {str(group): encode(scored) for group, scored in ready.items()}
