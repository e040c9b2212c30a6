"""The ledger: every prompt group is in exactly one state, and each one not trained ends with a named, counted reason.

Guarantees (promise 3 of the design), checked by `Ledger.check()`:
- a group moves only along the arrows below; any other move raises `IllegalTransition` and changes nothing;
- a group that fails `MAX_FAILURES` times is rejected("poison");
- along the surviving lineage of weights, each group entered one optimizer step or was rejected with a reason.

    pending -> generating -> scoring -> ready -> trained(lineage, step)
       ^------------+-----------+                            requeue(reason), fail(reason)
    pending, generating, scoring, ready -> rejected(reason)
    ready, trained after the checkpoint -> pending           only by resume(step)

A lineage is a sequence of weights without a restart. Steps count from 1 along the surviving lineage, so a checkpoint of
step s holds the work of steps 1..s. The ledger does not know weight versions.
Counts of states and reasons are kept as groups move, so that reading them costs the same however many groups there are.
Pure, in memory, deterministic; `snapshot` returns it as plain data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

# A prompt that fails three times is assumed to cause the failures (promise 2).
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
    """A move that the state of the group does not allow."""


class BrokenLedger(RuntimeError):
    """An invariant of the ledger does not hold."""


@dataclass
class Entry:
    """The state of one group. `reason` is set only if rejected, `lineage` and `step` only if trained."""

    state: State = State.PENDING
    failures: int = 0
    reason: str | None = None
    lineage: int | None = None
    step: int | None = None


class Ledger:
    """States of all groups. forks[l]: the step after which lineage l began. requeues: number of requeues by reason."""

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
        self._counts: Counter[State] = Counter()
        self._reasons: Counter[str] = Counter()
        self._last_step = 0
        self.forks: list[int] = [0]
        self.requeues: Counter[str] = Counter()

    @property
    def lineage(self) -> int:
        return len(self.forks) - 1

    def add(self, group: int) -> None:
        """Add a pending group. Raises IllegalTransition if it is in the ledger already."""
        if group in self._entries:
            raise IllegalTransition(f"group {group} is in the ledger already ({self._entries[group].state})")
        self._entries[group] = Entry()
        self._counts[State.PENDING] += 1

    def state(self, group: int) -> State:
        return self._entry(group).state

    def entry(self, group: int) -> Entry:
        """A copy of the group's entry."""
        return Entry(**asdict(self._entry(group)))

    def groups(self, state: State) -> list[int]:
        """The groups in a state, in the order they were added."""
        return [group for group, entry in self._entries.items() if entry.state is state]

    def generate(self, group: int) -> None:
        self._move(group, State.GENERATING)

    def score(self, group: int) -> None:
        self._move(group, State.SCORING)

    def ready(self, group: int) -> None:
        self._move(group, State.READY)

    def train(self, group: int, step: int) -> None:
        """Record that optimizer step `step` of the current lineage has ended and trained the group."""
        fork = self.forks[-1]
        if step <= fork:
            raise IllegalTransition(f"group {group} in step {step}: lineage {self.lineage} began after step {fork}")
        entry = self._move(group, State.TRAINED)
        entry.lineage, entry.step = self.lineage, step
        self._last_step = max(self._last_step, step)

    def reject(self, group: int, reason: str) -> None:
        self._move(group, State.REJECTED).reason = reason
        self._reasons[reason] += 1

    def requeue(self, group: int, reason: str) -> None:
        """Return a group to pending for a cause outside it (an engine died, the weights were rolled back)."""
        self._move(group, State.PENDING)
        self.requeues[reason] += 1

    def fail(self, group: int, reason: str) -> State:
        """Requeue a group whose generation or scoring failed, or reject it as poison at the MAX_FAILURES-th failure.
        Returns its new state."""
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

        Training after that step is void, and groups in flight or finished since may hold tokens of the abandoned
        lineage. All of these are pending again and counted as `regenerated`, except the groups that the checkpoint
        holds, which are ready. Rejections stand. Returns the groups that are pending again. Raises IllegalTransition,
        changing nothing, for a step that is not on the current lineage, or if the checkpoint holds a group that is
        unknown or was trained in that step or before.
        """
        kept = set(ready)
        last = self.last_step()
        if not 0 <= step <= last:
            raise IllegalTransition(f"cannot resume from step {step}: the ledger has steps 0 to {last}")
        for group in kept:
            entry = self._entry(group)
            if entry.step is not None and entry.step <= step:
                raise IllegalTransition(f"group {group} is ready in the checkpoint, but step {entry.step} trained it")
        regenerated = []
        for group, entry in self._entries.items():
            if entry.state is State.REJECTED or (entry.step is not None and entry.step <= step):
                continue
            before, entry.state = entry.state, State.READY if group in kept else State.PENDING
            entry.lineage = entry.step = None
            if entry.state is State.PENDING and before is not State.PENDING:
                self.requeues["regenerated"] += 1
                regenerated.append(group)
        self.forks.append(step)
        self._count_again()
        return regenerated

    def last_step(self) -> int:
        """The last step of the current lineage in the ledger."""
        return self._last_step

    def counts(self) -> dict[str, int]:
        """The number of groups in each state, zeros included."""
        return {state.value: self._counts[state] for state in State}

    def rejections(self) -> dict[str, int]:
        """The number of rejected groups by reason."""
        return dict(self._reasons)

    def check(self) -> None:
        """Raises BrokenLedger, naming the group, unless every invariant of this module holds."""
        counts, reasons, last_step = self._counts, self._reasons, self._last_step
        self._count_again()
        if (counts, reasons, last_step) != (self._counts, self._reasons, self._last_step):
            raise BrokenLedger(
                f"counted {dict(counts)}, {dict(reasons)} and steps up to {last_step}, but the groups are "
                f"{dict(self._counts)}, {dict(self._reasons)} and steps up to {self._last_step}"
            )
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
        """The whole ledger as data that JSON can represent."""
        entries = [[group, *asdict(entry).values()] for group, entry in self._entries.items()]
        return {"forks": list(self.forks), "requeues": dict(self.requeues), "entries": entries}

    @classmethod
    def restore(cls, data: dict[str, Any]) -> Ledger:
        """The ledger of a `snapshot`. Raises BrokenLedger."""
        ledger = cls()
        ledger.forks = list(data["forks"])
        ledger.requeues = Counter(data["requeues"])
        for group, state, *rest in data["entries"]:
            ledger._entries[group] = Entry(State(state), *rest)
        ledger._count_again()
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
        self._counts[entry.state] -= 1
        self._counts[state] += 1
        entry.state = state
        return entry

    def _count_again(self) -> None:
        entries = self._entries.values()
        self._counts = Counter(entry.state for entry in entries)
        self._reasons = Counter(entry.reason for entry in entries if entry.reason is not None)
        self._last_step = max([self.forks[-1], *(entry.step for entry in entries if entry.step is not None)])
