"""Admission: how far generation may run ahead of training, decided by who may start, never by throwing work away.

Guarantees (promise 2 of the design; problem, rule, example and proof are in docs/staleness.md):
- no batch holds a group older than `Pacing.worst_age`, asserted at every batch;
- at staleness 0 batch t is exactly the t-th P surviving groups, in the order of their admission;
- whatever order groups finish in, a batch can be released once every group in flight has finished or been rejected;
- the same calls in the same order give the same batches.

Two clocks. `step` counts the optimizer steps of the surviving lineage: it drives every schedule, progress and log axis.
`version` rises by one at every optimizer step, published or not, only ever rises and is never reused. They are equal
until the first restart. The age of a group in a step is the version that the step starts from, less the oldest version
that drew a token or computed KV of the group. Windowed FIFO after MiniMax's Forge (2026). Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from orchestration.pacing import Pacing


class AdmissionError(RuntimeError):
    """A call that the protocol of `Admission` does not allow now."""


class StaleBatch(RuntimeError):
    """A batch holds a group older than the proven bound: some premise of the proof was broken outside this module."""


@dataclass(frozen=True)
class Batch:
    """The P groups of one optimizer step, in the order of their admission; the step starts from `version`."""

    version: int
    groups: tuple[int, ...]
    ages: tuple[int, ...]


@dataclass
class _Place:
    """`position` counts admissions; `oldest_version` is None until the group is ready."""

    position: int
    oldest_version: int | None = None


class Admission:
    """The slots, the window and the two clocks.

    The loop: `admit` while `free`; start a group on an engine if `may_start`; tell `ready` or `reject`; `take_batch`;
    train; `step_ended`, or `step_skipped` and another batch; publish if `publish_due`. A group that is generated anew
    just keeps its slot and its place.
    """

    def __init__(self, pacing: Pacing, version: int = 0, step: int = 0) -> None:
        """`version`: of the weights that this lineage starts from, published before anything is admitted. `step`: the
        optimizer steps that these weights have taken."""
        self.pacing = pacing
        self.version, self.step = version, step
        self._first_version = version
        self._admitted = 0
        # In the order of admission, which dict keeps: the walk of take_batch depends on it.
        self._waiting: dict[int, _Place] = {}
        self._training: tuple[int, ...] = ()

    @property
    def free(self) -> int:
        """Free slots. A group in training still holds its own."""
        return self.pacing.slots - len(self._waiting) - len(self._training)

    @property
    def publish_due(self) -> bool:
        """Whether the current version is one of those to be published."""
        return (self.version - self._first_version) % self.pacing.publish_every == 0

    @property
    def oldest_startable(self) -> int:
        """The oldest engine version that may start a group now.

        Lag is counted from the publication that is due, not the one that is done, so a slow publication holds starts
        back instead of ageing groups unseen.
        """
        steps = self.version - self._first_version
        publications = steps // self.pacing.publish_every - self.pacing.lag
        return self._first_version + max(0, publications) * self.pacing.publish_every

    def may_start(self, engine_version: int) -> bool:
        return engine_version >= self.oldest_startable

    def admit(self, group: int) -> None:
        """Give the group a slot and the next place in the queue. Raises AdmissionError when all slots are taken."""
        if self.free <= 0:
            raise AdmissionError(f"group {group} cannot be admitted: all {self.pacing.slots} slots are taken")
        if group in self._waiting or group in self._training:
            raise AdmissionError(f"group {group} is admitted already")
        self._waiting[group] = _Place(self._admitted)
        self._admitted += 1

    def ready(self, group: int, oldest_version: int) -> None:
        """The group can be trained; `oldest_version` drew a token or computed KV of it, and none older did."""
        place = self._place(group)
        if place.oldest_version is not None:
            raise AdmissionError(f"group {group} is ready already")
        if not self._first_version <= oldest_version <= self.version:
            raise AdmissionError(
                f"group {group} began under version {oldest_version}, outside {self._first_version}..{self.version}"
            )
        place.oldest_version = oldest_version

    def reject(self, group: int) -> None:
        """The group will not be trained: its slot is free at once, and if it was the anchor, the next one is."""
        self._place(group)
        del self._waiting[group]

    def take_batch(self) -> Batch | None:
        """The P oldest groups that the window lets out, or None while there are fewer.

        Raises AdmissionError while a step runs, StaleBatch if a group in the batch is older than the bound.
        """
        if self._training:
            raise AdmissionError(f"step from version {self.version} has not ended")
        chosen: dict[int, int] = {}
        end: float = math.inf
        for group, place in self._waiting.items():
            if place.position >= end or len(chosen) == self.pacing.groups_per_step:
                break
            if place.oldest_version is not None:
                chosen[group] = self.version - place.oldest_version
            elif end == math.inf:
                end = place.position + self.pacing.window
        if len(chosen) < self.pacing.groups_per_step:
            return None
        for group, age in chosen.items():
            if age > self.pacing.worst_age:
                raise StaleBatch(f"group {group} is {age} versions old; the bound is {self.pacing.worst_age}")
        for group in chosen:
            del self._waiting[group]
        self._training = tuple(chosen)
        return Batch(self.version, self._training, tuple(chosen.values()))

    def step_ended(self) -> int:
        """The running step has ended: its groups' slots are free. Returns the new version."""
        if not self._training:
            raise AdmissionError("no step is running")
        self._training = ()
        self.step += 1
        self.version += 1
        return self.version

    def step_skipped(self) -> None:
        """The running step changed nothing: its groups are rejected and their slots free; both clocks stay."""
        if not self._training:
            raise AdmissionError("no step is running")
        self._training = ()

    def _place(self, group: int) -> _Place:
        if group not in self._waiting:
            raise AdmissionError(f"group {group} is not waiting: it was never admitted, is in a step, or was rejected")
        return self._waiting[group]
