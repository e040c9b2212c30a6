"""The rules of docs/staleness.md in random asynchronous and synchronous runs, and the protocol call by call."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evidence.errors import BadInput
from orchestration.loop.admission import Admission, AdmissionError, Batch
from orchestration.loop.ledger import Ledger, State
from orchestration.pacing import Pacing

PACINGS = st.builds(
    Pacing,
    groups_per_step=st.integers(1, 6),
    staleness=st.integers(0, 3),
    publish_every=st.integers(1, 3),
    lag=st.integers(0, 2),
    window_fraction=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
)


@dataclass
class Run:
    """A simulated asynchronous run: `rng` picks each next event among those that are possible.

    Engines load publications late and skip some; groups finish in any order, a tenth of them a thousand times more
    slowly; groups fail and are rejected; steps are skipped. The run takes `steps` optimizer steps and admits exactly
    as many prompts as these need.
    """

    pacing: Pacing
    rng: random.Random
    steps: int = 12
    engines: int = 2
    failing: float = 0.1
    batches: list[Batch] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.admission, self.ledger = Admission(self.pacing), Ledger()
        self.published = [0]
        self.engine = [0] * self.engines
        self.began: dict[int, int] = {}
        self.speed: dict[int, float] = {}
        self.pace = [self.rng.choice([0.01, 1.0, 30.0]) for _ in range(4)]
        self.running: Batch | None = None
        self.changed = True  # since take_batch was last called

    def events(self) -> list[tuple[float, Callable[[], None]]]:
        """(relative rate, action) of every event that is possible now; taking a batch is one of them."""
        generating, publishing, training, finishing = self.pace
        events: list[tuple[float, Callable[[], None]]] = []
        for group in self.ledger.groups(State.PENDING):
            for version in self.engine:
                if self.admission.may_start(version):
                    events.append((generating, lambda group=group, version=version: self.start(group, version)))
        for group in self.ledger.groups(State.GENERATING):
            events.append((finishing * self.speed[group], lambda group=group: self.finish(group)))
        for number, version in enumerate(self.engine):
            for newer in self.published:
                if newer > version:
                    events.append((publishing, lambda number=number, newer=newer: self.load(number, newer)))
        if self.running:
            events.append((training, self.end_step))
        elif self.changed:
            events.append((training, self.take))
        return events

    def admit(self) -> None:
        """Fill the free slots as far as more prompts are needed."""
        counts = self.ledger.counts()
        wanted = self.steps * self.pacing.groups_per_step - (sum(counts.values()) - counts["rejected"])
        for _ in range(min(wanted, self.admission.free)):
            group = sum(self.ledger.counts().values())
            self.ledger.add(group)
            self.admission.admit(group)
            self.speed[group] = 0.001 if self.rng.random() < 0.1 else 1.0

    def start(self, group: int, version: int) -> None:
        self.ledger.generate(group)
        self.began[group] = version

    def finish(self, group: int) -> None:
        self.changed = True
        if self.rng.random() < self.failing:
            if self.ledger.fail(group, "timeout") is State.REJECTED:
                self.admission.reject(group)
            return
        self.ledger.score(group)
        if self.rng.random() < self.failing:
            self.ledger.reject(group, "late")
            self.admission.reject(group)
            return
        self.ledger.ready(group)
        self.admission.ready(group, self.began[group])

    def load(self, number: int, version: int) -> None:
        self.engine[number] = version

    def take(self) -> None:
        self.running = self.admission.take_batch()
        self.changed = False

    def end_step(self) -> None:
        assert self.running is not None
        batch, self.running, self.changed = self.running, None, True
        if self.rng.random() < self.failing:
            self.admission.step_skipped()
            for group in batch.groups:
                self.ledger.reject(group, "not_finite")
            return
        version = self.admission.step_ended()
        for group in batch.groups:
            self.ledger.train(group, version)
        self.batches.append(batch)
        if self.admission.publish_due:
            self.published.append(version)

    def go(self) -> "Run":
        while len(self.batches) < self.steps:
            self.admit()
            events = self.events()
            assert events, "deadlock: nothing is in flight and no batch can be taken"
            rates, actions = zip(*events)
            self.rng.choices(actions, rates)[0]()
        self.ledger.check()
        return self


@settings(deadline=None, max_examples=150)
@given(PACINGS, st.integers(0, 2**32))
def test_no_run_exceeds_the_bound_or_gets_stuck(pacing: Pacing, seed: int) -> None:
    run = Run(pacing, random.Random(seed)).go()
    assert max(age for batch in run.batches for age in batch.ages) <= pacing.worst_age
    assert [batch.version for batch in run.batches] == list(range(run.steps))
    trained = [group for batch in run.batches for group in batch.groups]
    assert len(trained) == len(set(trained)) == run.steps * pacing.groups_per_step
    for batch in run.batches:
        assert batch.groups == tuple(sorted(batch.groups))
        # Recomputed from the simulated engines, independently of admission.
        assert batch.ages == tuple(batch.version - run.began[group] for group in batch.groups)


@settings(deadline=None, max_examples=40)
@given(PACINGS, st.integers(0, 2**32))
def test_staleness_0_is_plain_synchronous_training(pacing: Pacing, seed: int) -> None:
    synchronous = replace(pacing, staleness=0, publish_every=1, lag=0)
    run = Run(synchronous, random.Random(seed)).go()
    survivors = [group for group in range(run.admission._admitted) if run.ledger.state(group) is State.TRAINED]
    size = pacing.groups_per_step
    for step, batch in enumerate(run.batches):
        assert batch.groups == tuple(survivors[step * size : (step + 1) * size])
        assert set(batch.ages) == {0}


def batch_by_the_rule(pacing: Pacing, finished: list[bool]) -> list[int] | None:
    """The rule as the design states it: take the oldest finished group within the window until there are P."""
    taken: list[int] = []
    while len(taken) < pacing.groups_per_step:
        anchor = min((i for i in range(len(finished)) if i not in taken), default=len(finished))
        window = range(anchor, min(anchor + pacing.window, len(finished)))
        passing = [i for i in window if finished[i] and i not in taken]
        if not passing:
            return None
        taken.append(passing[0])
    return taken


@given(PACINGS, st.data())
def test_a_batch_equals_taking_one_group_after_another(pacing: Pacing, data: st.DataObject) -> None:
    finished = data.draw(st.lists(st.booleans(), min_size=pacing.slots, max_size=pacing.slots))
    admission = Admission(pacing)
    for group in range(pacing.slots):
        admission.admit(group)
    for group in data.draw(st.permutations(range(pacing.slots))):
        if finished[group]:
            admission.ready(group, 0)
    expected = batch_by_the_rule(pacing, finished)
    batch = admission.take_batch()
    assert (list(batch.groups) if batch else None) == expected


# The protocol, call by call.


def test_the_worked_example_of_the_docs() -> None:
    admission = Admission(Pacing(groups_per_step=4, staleness=1, publish_every=1, lag=0, window_fraction=0.3))
    batches = []
    for wave in (range(8), range(8, 12), range(12, 16)):
        for group in wave:
            admission.admit(group)
            if group != 7:
                admission.ready(group, admission.version)
        batches.append(admission.take_batch())
        if batches[-1]:
            admission.step_ended()
    admission.ready(7, 0)
    batches.append(admission.take_batch())
    assert batches == [
        Batch(0, (0, 1, 2, 3), (0, 0, 0, 0)),
        Batch(1, (4, 5, 6, 8), (1, 1, 1, 0)),
        None,
        Batch(2, (7, 9, 10, 11), (2, 1, 1, 1)),
    ]


def filled_admission(pacing: Pacing) -> Admission:
    admission = Admission(pacing)
    for group in range(pacing.slots):
        admission.admit(group)
    return admission


def test_the_anchor_holds_the_window_until_it_is_rejected() -> None:
    admission = filled_admission(Pacing(groups_per_step=2, staleness=2, window_fraction=0.5))  # B 6, W 3
    admission.ready(3, 0)
    admission.ready(2, 0)
    assert admission.take_batch() is None, "group 0 anchors the window 0..2, group 3 may not pass it"
    admission.reject(0)
    assert admission.free == 1
    batch = admission.take_batch()
    assert batch == Batch(version=0, groups=(2, 3), ages=(0, 0)), "group 1 anchors the window 1..3"


def test_slots_are_freed_only_when_the_step_ends() -> None:
    admission = filled_admission(Pacing(groups_per_step=2, staleness=0))
    for group in (0, 1):
        admission.ready(group, 0)
    assert admission.take_batch() is not None
    assert admission.free == 0
    with pytest.raises(AdmissionError, match="all 2 slots are taken"):
        admission.admit(2)
    assert admission.step_ended() == 1
    assert admission.free == 2


def test_a_skipped_step_frees_its_slots_and_raises_no_version() -> None:
    admission = filled_admission(Pacing(groups_per_step=2, staleness=0))
    for group in (0, 1):
        admission.ready(group, 0)
    admission.take_batch()
    admission.step_skipped()
    assert (admission.free, admission.version) == (2, 0)
    for group in (2, 3):
        admission.admit(group)
        admission.ready(group, 0)
    assert admission.take_batch() == Batch(0, (2, 3), (0, 0))


def test_publications_and_lag_are_counted_from_the_first_version_of_a_lineage() -> None:
    admission = Admission(Pacing(groups_per_step=1, staleness=0, publish_every=2, lag=1), version=7)
    clocks = []
    for group in range(6):
        admission.admit(group)
        clocks.append((admission.version, admission.publish_due, admission.oldest_startable))
        admission.ready(group, admission.oldest_startable)
        admission.take_batch()
        admission.step_ended()
    assert clocks == [(7, True, 7), (8, False, 7), (9, True, 7), (10, False, 7), (11, True, 9), (12, False, 9)]
    assert not admission.may_start(10)
    assert admission.may_start(11)


def test_calls_out_of_order_are_refused() -> None:
    admission = filled_admission(Pacing(groups_per_step=1, staleness=1))
    refused: list[tuple[Callable[[], object], str]] = [
        (admission.step_ended, "no step is running"),
        (admission.step_skipped, "no step is running"),
        (lambda: admission.ready(9, 0), "group 9 is not waiting"),
        (lambda: admission.ready(0, 1), r"outside 0\.\.0"),
        (lambda: admission.ready(0, -1), r"outside 0\.\.0"),
        (lambda: admission.reject(9), "group 9 is not waiting"),
    ]
    for call, message in refused:
        with pytest.raises(AdmissionError, match=message):
            call()
    admission.ready(0, 0)
    with pytest.raises(AdmissionError, match="ready already"):
        admission.ready(0, 0)
    admission.take_batch()
    with pytest.raises(AdmissionError, match="has not ended"):
        admission.take_batch()
    with pytest.raises(AdmissionError, match="in a step"):
        admission.reject(0)
    admission.step_ended()
    with pytest.raises(AdmissionError, match="admitted already"):
        admission.admit(1)


@pytest.mark.parametrize(
    "invalid", [{"groups_per_step": 0}, {"staleness": -1}, {"publish_every": 0}, {"lag": -1}, {"window_fraction": 1.5}]
)
def test_an_invalid_pacing_is_refused_by_key(invalid: dict[str, float]) -> None:
    with pytest.raises(BadInput, match=next(iter(invalid))):
        Pacing(**invalid)  # type: ignore[arg-type]


def test_a_restart_adds_nothing_to_the_age_of_the_groups_that_a_checkpoint_holds() -> None:
    pacing = Pacing(groups_per_step=1, staleness=2)
    # Weights 5 were restored as 9; those again, one step later, as 20.
    admission = Admission(pacing, version=20, step=6, restarts=[(5, 9), (10, 20)])
    admission.restore(0, oldest_version=4)  # a step before the first checkpoint
    admission.restore(1, oldest_version=9)
    admission.restore(2, oldest_version=10)
    assert admission.queue == [0, 1, 2]
    ages = []
    for _ in range(3):
        batch = admission.take_batch()
        assert batch is not None
        ages += batch.ages
        admission.step_ended()
    # From 4 to the restored 5 is one step, from 9 to the restored 10 another; 0 waited 0 steps since, 1 one, 2 two.
    assert ages == [2, 2, 2]
    assert (admission.version, admission.step) == (23, 9)


def test_after_a_restart_a_new_group_starts_on_the_new_weights_only() -> None:
    admission = Admission(Pacing(groups_per_step=1, staleness=1), version=9, step=5, restarts=[(5, 9)])
    assert [admission.may_start(version) for version in (5, 8, 9)] == [False, False, True]
    admission.admit(0)
    with pytest.raises(AdmissionError, match="began under version 5, outside"):
        admission.ready(0, 5)
