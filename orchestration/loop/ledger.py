"""The ledger: every prompt group is in exactly one state, and each one not trained ends with a named, counted reason.

Guarantees (promise 3 of the design), checked by `Ledger.check()`:
- a group moves only along the arrows below; any other move raises `IllegalTransition` and changes nothing;
- a group that fails `MAX_FAILURES` times is rejected("poison");
- along the surviving lineage of weights, each group entered one optimizer step or was rejected with a reason.

    pending -> generating -> scoring -> ready -> trained(lineage, step)
       ^------------+-----------+---------+                  requeue(reason), fail(reason)
    pending, generating, scoring, ready -> rejected(reason)

A lineage is a sequence of weights without a restart. Steps count from 1 along the surviving lineage, so a checkpoint of
step s holds the work of steps 1..s. The ledger does not know weight versions.
A restart goes back to the `snapshot` in a checkpoint (`restore`, then `fork`): whatever happened to groups after it is
void, rejections included, since they may have come from weights that no longer exist.

Groups are added in increasing order, so that all below `frontier` are known. `settle` forgets those that are trained or
rejected, except in the counts: what the ledger holds and what its calls cost depends on the groups in flight only.
Every move is also passed to `journal` (orchestration/loop/journal writes it to disk). Pure, in memory, deterministic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
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
    State.READY: {State.TRAINED, State.PENDING, State.REJECTED},
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
    """States of all groups.

    forks[l]: the step after which lineage l began. requeues: number of requeues by reason. frontier: the first group
    that was never added. `journal` is called with every move, as plain data.
    """

    def __init__(self, journal: Callable[[dict[str, Any]], object] = lambda move: None) -> None:
        self._journal = journal
        self._entries: dict[int, Entry] = {}
        self._counts: Counter[State] = Counter()
        self._reasons: Counter[str] = Counter()
        # The counts of groups that `settle` has forgotten.
        self._settled: Counter[State] = Counter()
        self._settled_reasons: Counter[str] = Counter()
        self._last_step = 0
        self.frontier = 0
        self.forks: list[int] = [0]
        self.requeues: Counter[str] = Counter()

    @property
    def lineage(self) -> int:
        return len(self.forks) - 1

    def add(self, group: int, sample: str = "") -> None:
        """Add a pending group about the sample with this id. Raises IllegalTransition if it, or a later one, has been
        added already."""
        if group < self.frontier:
            raise IllegalTransition(f"group {group} is in the ledger already, which has all up to {self.frontier - 1}")
        self._entries[group] = Entry()
        self._counts[State.PENDING] += 1
        self.frontier = group + 1
        self._journal({"group": group, "sample": sample, "state": State.PENDING.value})

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
        entry = self._move(group, State.TRAINED, lineage=self.lineage, step=step)
        entry.lineage, entry.step = self.lineage, step
        self._last_step = max(self._last_step, step)

    def reject(self, group: int, reason: str) -> None:
        self._move(group, State.REJECTED, reason=reason).reason = reason
        self._reasons[reason] += 1

    def requeue(self, group: int, reason: str) -> None:
        """Return a group to pending for a cause outside it (an engine died, the weights were rolled back)."""
        self._move(group, State.PENDING, reason=reason)
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

    def settle(self) -> None:
        """Forget the groups that are trained or rejected, except in the counts."""
        for group in [g for g, entry in self._entries.items() if entry.state in (State.TRAINED, State.REJECTED)]:
            entry = self._entries.pop(group)
            self._settled[entry.state] += 1
            if entry.reason is not None:
                self._settled_reasons[entry.reason] += 1

    def fork(self, lineage: int, abandoned: int) -> None:
        """Begin `lineage`, which is new, after the last step, in a ledger that was just restored. The groups that were
        in flight at the checkpoint are pending again; those that are ready stay so. `abandoned`: the frontier that the
        run had reached. All groups whose work is lost are counted as `regenerated`."""
        lost = [g for g, entry in self._entries.items() if entry.state in (State.GENERATING, State.SCORING)]
        self.requeues["regenerated"] += len(lost) + max(0, abandoned - self.frontier)
        # Lineages that the checkpoint does not know have been abandoned, too.
        self.forks += [self._last_step] * (lineage + 1 - len(self.forks))
        for group in lost:
            self._move(group, State.PENDING, reason="regenerated")
        for group in self.groups(State.READY):
            self._journal({"group": group, "state": State.READY.value})

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
        counts, reasons = self._count()
        if (counts, reasons) != (self._counts, self._reasons):
            raise BrokenLedger(
                f"counted {dict(self._counts)} and {dict(self._reasons)}, but the groups are {dict(counts)} and "
                f"{dict(reasons)}"
            )
        if any(group >= self.frontier for group in self._entries):
            raise BrokenLedger(f"group {max(self._entries)} lies beyond the frontier {self.frontier}")
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
        last_step = max((entry.step for entry in self._entries.values() if entry.step is not None), default=0)
        if not max(self.forks[-1], last_step) <= self._last_step:
            raise BrokenLedger(f"the last step is {self._last_step}, but step {last_step} has trained groups")

    def snapshot(self) -> dict[str, Any]:
        """The whole ledger as data that JSON can represent."""
        return {
            "forks": list(self.forks),
            "requeues": dict(self.requeues),
            "frontier": self.frontier,
            "last_step": self._last_step,
            "settled": dict(self._settled),
            "settled_reasons": dict(self._settled_reasons),
            "entries": [[group, *asdict(entry).values()] for group, entry in self._entries.items()],
        }

    @classmethod
    def restore(cls, data: dict[str, Any], journal: Callable[[dict[str, Any]], object] = lambda move: None) -> Ledger:
        """The ledger of a `snapshot`. Raises BrokenLedger."""
        ledger = cls(journal)
        ledger.forks = list(data["forks"])
        ledger.requeues = Counter(data["requeues"])
        ledger.frontier, ledger._last_step = data["frontier"], data["last_step"]
        ledger._settled = Counter({State(state): n for state, n in data["settled"].items()})
        ledger._settled_reasons = Counter(data["settled_reasons"])
        for group, state, *rest in data["entries"]:
            ledger._entries[group] = Entry(State(state), *rest)
        ledger._counts, ledger._reasons = ledger._count()
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

    def _move(self, group: int, state: State, **facts: Any) -> Entry:
        self._require(group, state)
        entry = self._entries[group]
        self._counts[entry.state] -= 1
        self._counts[state] += 1
        entry.state = state
        self._journal({"group": group, "state": state.value, **facts})
        return entry

    def _count(self) -> tuple[Counter[State], Counter[str]]:
        """The number of groups in each state, and of rejected groups by reason, counted anew."""
        entries = self._entries.values()
        counts = Counter(entry.state for entry in entries)
        reasons = Counter(entry.reason for entry in entries if entry.reason is not None)
        return counts + self._settled, reasons + self._settled_reasons
