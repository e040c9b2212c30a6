"""The ledger: every prompt group is in exactly one state, and whatever is not trained ends in a named, counted outcome.

Guarantees (promise 3 of the design), checked by `Ledger.check()`:
- a group moves only along the arrows below; anything else raises `IllegalTransition` and changes nothing;
- a group fails at most `MAX_FAILURES` times, then it is rejected("poison");
- along the surviving lineage of weights each group entered one optimizer step or was rejected with a reason.

    pending -> generating -> scoring -> ready -> trained(lineage, step)
       ^------------+-----------+                            requeue(reason), fail(reason)
    pending, generating, scoring, ready -> rejected(reason)
    ready, trained after the checkpoint -> pending           only by resume(step)

A lineage is a sequence of weights without a restart. Steps count from 1 along the surviving lineage, so a checkpoint of
step s holds the work of steps 1..s; weight versions, which only ever rise, are not the ledger's concern.
Pure, in memory, deterministic; `snapshot` returns it as plain data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

# A prompt that fails three times is taken to be the cause itself (promise 2).
MAX_FAILURES = 3


class State(StrEnum):
    PENDING = "pending"
    GENERATING = "generating"
    SCORING = "scoring"
    READY = "ready"
    TRAINED = "trained"
    REJECTED = "rejected"


LEGAL = {
    State.PENDING: {State.GENERATING, State.REJECTED},
    State.GENERATING: {State.SCORING, State.PENDING, State.REJECTED},
    State.SCORING: {State.READY, State.PENDING, State.REJECTED},
    State.READY: {State.TRAINED, State.REJECTED},
    State.TRAINED: set(),
    State.REJECTED: set(),
}


class IllegalTransition(RuntimeError):
    """A group was asked to do what its state does not allow."""


class BrokenLedger(RuntimeError):
    """An invariant of the ledger does not hold."""


@dataclass
class Entry:
    """One group's place: `reason` only when rejected, `lineage` and `step` only when trained."""

    state: State = State.PENDING
    failures: int = 0
    reason: str | None = None
    lineage: int | None = None
    step: int | None = None


class Ledger:
    """States of all groups. `forks[l]`: the step that lineage l began after. `requeues`: their number by reason."""

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
        self.forks: list[int] = [0]
        self.requeues: Counter[str] = Counter()

    @property
    def lineage(self) -> int:
        return len(self.forks) - 1

    def add(self, group: int) -> None:
        """A new group, pending. Raises IllegalTransition if it is known already."""
        if group in self._entries:
            raise IllegalTransition(f"group {group} is in the ledger already ({self._entries[group].state})")
        self._entries[group] = Entry()

    def state(self, group: int) -> State:
        return self._entry(group).state

    def entry(self, group: int) -> Entry:
        """A copy of the group's entry."""
        return Entry(**asdict(self._entry(group)))

    def groups(self, state: State) -> list[int]:
        """The groups in a state, in the order in which they were added."""
        return [group for group, entry in self._entries.items() if entry.state is state]

    def generate(self, group: int) -> None:
        self._move(group, State.GENERATING)

    def score(self, group: int) -> None:
        self._move(group, State.SCORING)

    def ready(self, group: int) -> None:
        self._move(group, State.READY)

    def train(self, group: int, step: int) -> None:
        """The group was part of optimizer step `step` of the current lineage. That step has ended."""
        fork = self.forks[-1]
        if step <= fork:
            raise IllegalTransition(f"group {group} in step {step}: lineage {self.lineage} began after step {fork}")
        entry = self._move(group, State.TRAINED)
        entry.lineage, entry.step = self.lineage, step

    def reject(self, group: int, reason: str) -> None:
        self._move(group, State.REJECTED).reason = reason

    def requeue(self, group: int, reason: str) -> None:
        """Back to pending through no fault of the group's own (an engine died, the weights were rolled back)."""
        self._move(group, State.PENDING)
        self.requeues[reason] += 1

    def fail(self, group: int, reason: str) -> State:
        """The group's generation or scoring failed: requeued, or rejected("poison") at the MAX_FAILURES-th time.
        Returns the state it is in now."""
        self._require(group, State.PENDING)
        entry = self._entry(group)
        entry.failures += 1
        if entry.failures < MAX_FAILURES:
            self.requeue(group, reason)
        else:
            self.reject(group, "poison")
        return entry.state

    def resume(self, step: int, ready: Iterable[int] = ()) -> list[int]:
        """Start a new lineage from the checkpoint of step `step`, which holds the finished groups `ready`.

        What was trained after it is void, and what was under way or finished since may hold tokens of the abandoned
        lineage: all these are pending again, counted `regenerated`, except those that the checkpoint itself holds:
        they are ready. Rejections stand. Returns the groups that are pending again. Raises IllegalTransition,
        changing nothing, for a step not on the current lineage, or when the checkpoint holds a group that is
        unknown or was trained up to it.
        """
        kept = set(ready)
        last = self.last_step()
        if not 0 <= step <= last:
            raise IllegalTransition(f"no checkpoint of step {step} can exist: the last step was {last}")
        for group in kept:
            entry = self._entry(group)
            if entry.step is not None and entry.step <= step:
                raise IllegalTransition(f"group {group} is ready in the checkpoint of {step}, but trained before it")
        again = []
        for group, entry in self._entries.items():
            if entry.state is State.REJECTED or (entry.step is not None and entry.step <= step):
                continue
            was, entry.state = entry.state, State.READY if group in kept else State.PENDING
            entry.lineage = entry.step = None
            if entry.state is State.PENDING and was is not State.PENDING:
                self.requeues["regenerated"] += 1
                again.append(group)
        self.forks.append(step)
        return again

    def last_step(self) -> int:
        """The last step that the ledger knows of."""
        return max([self.forks[-1], *(entry.step for entry in self._entries.values() if entry.step is not None)])

    def counts(self) -> dict[str, int]:
        """Groups per state; every state is named."""
        found = Counter(entry.state for entry in self._entries.values())
        return {state.value: found[state] for state in State}

    def rejections(self) -> dict[str, int]:
        """Rejected groups per reason."""
        return dict(Counter(entry.reason for entry in self._entries.values() if entry.reason is not None))

    def check(self) -> None:
        """Raise BrokenLedger, naming the group, unless every invariant of this module holds."""
        for group, entry in self._entries.items():
            if (entry.state is State.REJECTED) != (entry.reason is not None):
                raise BrokenLedger(f"group {group} is {entry.state} with reason {entry.reason!r}")
            if not 0 <= entry.failures <= MAX_FAILURES:
                raise BrokenLedger(f"group {group} has failed {entry.failures} times")
            if (entry.failures == MAX_FAILURES) != (entry.reason == "poison"):
                raise BrokenLedger(f"group {group} has failed {entry.failures} times and is {entry.state}")
            trained = entry.state is State.TRAINED
            if (trained, trained) != (entry.lineage is not None, entry.step is not None):
                raise BrokenLedger(f"group {group} is {entry.state} in lineage {entry.lineage}, step {entry.step}")
            if entry.lineage is None or entry.step is None:
                continue
            if not 0 <= entry.lineage <= self.lineage or entry.step <= self.forks[entry.lineage]:
                raise BrokenLedger(f"group {group}: lineage {entry.lineage} has no step {entry.step}")
            if any(entry.step > fork for fork in self.forks[entry.lineage + 1 :]):
                raise BrokenLedger(f"group {group}: step {entry.step} of lineage {entry.lineage} was abandoned")

    def snapshot(self) -> dict[str, Any]:
        """The whole ledger as JSON-able data."""
        entries = [[group, *asdict(entry).values()] for group, entry in self._entries.items()]
        return {"forks": list(self.forks), "requeues": dict(self.requeues), "entries": entries}

    @classmethod
    def restore(cls, data: dict[str, Any]) -> Ledger:
        """The ledger that `snapshot` described, checked."""
        ledger = cls()
        ledger.forks = list(data["forks"])
        ledger.requeues = Counter(data["requeues"])
        for group, state, *rest in data["entries"]:
            ledger._entries[group] = Entry(State(state), *rest)
        ledger.check()
        return ledger

    def _entry(self, group: int) -> Entry:
        if group not in self._entries:
            raise IllegalTransition(f"group {group} is not in the ledger")
        return self._entries[group]

    def _require(self, group: int, state: State) -> None:
        now = self._entry(group).state
        if state not in LEGAL[now]:
            raise IllegalTransition(f"group {group} cannot go from {now} to {state}")

    def _move(self, group: int, state: State) -> Entry:
        self._require(group, state)
        entry = self._entries[group]
        entry.state = state
        return entry
