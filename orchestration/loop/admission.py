"""Admission: bounds how far generation runs ahead of training by delaying starts, never by discarding work.

Guarantees (promise 2 of the design; problem, rule, example and proof are in docs/staleness.md):
- no batch holds a group older than `Pacing.worst_age`, asserted at every batch;
- at staleness 0, batch t is exactly the t-th P surviving groups in the order of their admission;
- whatever order groups finish in, a batch can be released once every group in flight has finished or been rejected;
- the same calls in the same order give the same batches.

Two clocks. `step` counts the optimizer steps of the surviving lineage: it drives every schedule, progress and log axis.
`version` rises by one at every optimizer step, published or not, only ever rises and is never reused. They are equal
until the first restart. The age of a group in a step is the version that the step starts from, less the oldest version
that drew a token or computed KV of the group: the number of optimizer steps between the two, so a restart, which
publishes restored weights under a higher version, adds nothing to it. Windowed FIFO after MiniMax's Forge (2026). Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestration.pacing import Pacing


class AdmissionError(RuntimeError):
    """A call that the protocol of `Admission` does not allow in its current state."""


class StaleBatch(RuntimeError):
    """A batch holds a group older than the proven bound: a premise of the proof was broken outside this module."""


@dataclass(frozen=True)
class Batch:
    """The P groups of one optimizer step, which starts from `version`, in the order of admission. ages: in versions."""

    version: int
    groups: tuple[int, ...]
    ages: tuple[int, ...]


@dataclass
class _Place:
    """A group's place in the queue. position: its rank in the order of admission. oldest_version: None until ready."""

    position: int
    oldest_version: int | None = None


class Admission:
    """The slots, the window and the two clocks.

    The loop: `admit` while `free`; start a group on an engine if `may_start`; report `ready` or `reject`; `take_batch`;
    train; `step_ended`, or `step_skipped` and another batch; publish if `publish_due`. A group that is generated again
    keeps its slot and its place.
    """

    def __init__(
        self, pacing: Pacing, version: int = 0, step: int = 0, restarts: Sequence[tuple[int, int]] = ()
    ) -> None:
        """`version`: the version of the weights that this lineage starts from, published before any group is admitted.
        `step`: the number of optimizer steps behind these weights. `restarts`: of each restart so far, the version
        whose weights were restored and the version under which they were published again."""
        self.pacing = pacing
        self.version, self.step = version, step
        self.restarts = tuple(restarts)
        self._first_version = version
        self._admitted = 0
        # In the order of admission, on which take_batch depends.
        self._waiting: dict[int, _Place] = {}
        self._training: tuple[int, ...] = ()

    @property
    def free(self) -> int:
        """The number of free slots. A group in training still holds its slot."""
        return self.pacing.slots - len(self._waiting) - len(self._training)

    @property
    def anchor(self) -> int | None:
        """The oldest group that is not ready. Only some of those after it may be trained before it."""
        return next((group for group, place in self._waiting.items() if place.oldest_version is None), None)

    @property
    def publish_due(self) -> bool:
        """Whether the current version must be published."""
        return (self.version - self._first_version) % self.pacing.publish_every == 0

    @property
    def oldest_startable(self) -> int:
        """The oldest engine version that may start a group now.

        Lag is counted from the last publication that is due, whether or not it is done, so a slow publication delays
        starts instead of ageing groups unnoticed.
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
        """Record that the group can be trained. `oldest_version`: the oldest that drew a token or computed KV of it."""
        place = self._place(group)
        if place.oldest_version is not None:
            raise AdmissionError(f"group {group} is ready already")
        if not self._first_version <= oldest_version <= self.version:
            raise AdmissionError(
                f"group {group} began under version {oldest_version}, outside {self._first_version}..{self.version}"
            )
        place.oldest_version = oldest_version

    def restore(self, group: int, oldest_version: int) -> None:
        """Admit a group that a checkpoint holds, ready. `oldest_version`: as for `ready`, from before the restart."""
        self.admit(group)
        self._waiting[group].oldest_version = oldest_version

    @property
    def queue(self) -> list[int]:
        """The groups that wait or are under way, in the order of their admission."""
        return list(self._waiting)

    def reject(self, group: int) -> None:
        """Remove a group that will not be trained. Its slot is free at once; if it was the anchor, the next one is."""
        self._place(group)
        del self._waiting[group]

    def take_batch(self) -> Batch | None:
        """The P oldest ready groups within the window, or None while there are fewer.

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
                chosen[group] = self._age(place.oldest_version)
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
        """End the running step: free the slots of its groups, advance both clocks, and return the new version."""
        if not self._training:
            raise AdmissionError("no step is running")
        self._training = ()
        self.step += 1
        self.version += 1
        return self.version

    def step_skipped(self) -> None:
        """End the running step, which changed no weights: its groups are rejected, their slots free; no clock moves."""
        if not self._training:
            raise AdmissionError("no step is running")
        self._training = ()

    def _age(self, oldest_version: int) -> int:
        skipped = sum(renamed - restored for restored, renamed in self.restarts if oldest_version <= restored)
        return self.version - oldest_version - skipped

    def _place(self, group: int) -> _Place:
        if group not in self._waiting:
            raise AdmissionError(f"group {group} is not waiting: it was never admitted, is in a step, or was rejected")
        return self._waiting[group]
