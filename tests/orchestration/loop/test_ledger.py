"""The ledger's transitions, counts and failures, and the rollback to a checkpoint."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.loop.ledger import MAX_FAILURES, BrokenLedger, IllegalTransition, Ledger, State


def add_in_state(ledger: Ledger, group: int, state: State, step: int = 1) -> None:
    """Add a group and move it to `state` on the shortest path."""
    ledger.add(group)
    path = [
        (State.GENERATING, lambda: ledger.generate(group)),
        (State.SCORING, lambda: ledger.score(group)),
        (State.READY, lambda: ledger.ready(group)),
        (State.TRAINED, lambda: ledger.train(group, step)),
    ]
    if state is State.REJECTED:
        ledger.reject(group, "unreadable")
    elif state is not State.PENDING:
        for reached, move in path:
            move()
            if reached is state:
                break
    assert ledger.state(group) is state


MOVES = {
    "generate": lambda ledger: ledger.generate(0),
    "score": lambda ledger: ledger.score(0),
    "ready": lambda ledger: ledger.ready(0),
    "train": lambda ledger: ledger.train(0, 2),
    "reject": lambda ledger: ledger.reject(0, "late"),
    "requeue": lambda ledger: ledger.requeue(0, "engine died"),
    "fail": lambda ledger: ledger.fail(0, "timeout"),
}
ALLOWED = {
    State.PENDING: {"generate", "reject"},
    State.GENERATING: {"score", "requeue", "fail", "reject"},
    State.SCORING: {"ready", "requeue", "fail", "reject"},
    State.READY: {"train", "requeue", "fail", "reject"},
    State.TRAINED: set(),
    State.REJECTED: set(),
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("move", MOVES)
def test_only_legal_moves_are_made_and_illegal_ones_change_nothing(state: State, move: str) -> None:
    ledger = Ledger()
    add_in_state(ledger, 0, state)
    before = ledger.snapshot()
    if move in ALLOWED[state]:
        MOVES[move](ledger)
        assert ledger.snapshot() != before
    else:
        with pytest.raises(IllegalTransition):
            MOVES[move](ledger)
        assert ledger.snapshot() == before
    ledger.check()


def test_unknown_groups_and_duplicates_are_refused() -> None:
    ledger = Ledger()
    ledger.add(3)
    with pytest.raises(IllegalTransition, match="3 is in the ledger already, which has all up to 3"):
        ledger.add(3)
    with pytest.raises(IllegalTransition, match="4 is not in the ledger"):
        ledger.generate(4)


def test_the_third_failure_is_poison_and_requeues_are_not_failures() -> None:
    ledger = Ledger()
    ledger.add(0)
    for _ in range(5):
        ledger.generate(0)
        ledger.requeue(0, "engine died")
    for failure in range(1, MAX_FAILURES + 1):
        ledger.generate(0)
        if failure == 2:
            ledger.score(0)
        assert ledger.fail(0, "timeout") is (State.REJECTED if failure == 3 else State.PENDING)
    assert ledger.rejections() == {"poison": 1}
    assert ledger.requeues == {"engine died": 5, "timeout": 2}
    assert ledger.entry(0).failures == 3


def test_counts_cover_every_state_and_every_reason() -> None:
    ledger = Ledger()
    for group, state in enumerate([*State, State.READY]):
        add_in_state(ledger, group, state)
    add_in_state(ledger, 10, State.REJECTED)
    add_in_state(ledger, 11, State.SCORING)
    ledger.reject(11, "late")
    assert ledger.counts() == {"pending": 1, "generating": 1, "scoring": 1, "ready": 2, "trained": 1, "rejected": 3}
    assert ledger.rejections() == {"unreadable": 2, "late": 1}
    assert ledger.groups(State.READY) == [3, 6]


def rolled_back(ledger: Ledger, snapshot: dict, lineage: int) -> Ledger:
    """The ledger after going back to a snapshot, as `lineage`."""
    again = Ledger.restore(json.loads(json.dumps(snapshot)))
    again.fork(lineage, ledger.frontier)
    return again


def test_going_back_voids_all_that_came_after_the_checkpoint_and_keeps_what_was_ready() -> None:
    ledger = Ledger()
    for group in range(4):
        add_in_state(ledger, group, State.TRAINED, step=group // 2 + 1)
    for group, state in enumerate((State.READY, State.GENERATING, State.SCORING, State.PENDING), start=4):
        add_in_state(ledger, group, state)
    add_in_state(ledger, 8, State.REJECTED)
    checkpoint = ledger.snapshot()
    ledger.train(4, 3)
    ledger.reject(7, "zero_variance")
    add_in_state(ledger, 9, State.TRAINED, step=3)

    again = rolled_back(ledger, checkpoint, 1)
    assert again.groups(State.TRAINED) == [0, 1, 2, 3]
    assert again.groups(State.READY) == [4]
    assert again.groups(State.PENDING) == [5, 6, 7]
    assert again.rejections() == {"unreadable": 1}, "what the abandoned weights had rejected may be good now"
    assert again.requeues == {"regenerated": 3}, "5, 6 and 9; 7 had not begun"
    assert (again.frontier, again.last_step()) == (9, 2)
    again.train(4, 3)
    assert (again.entry(4).lineage, again.entry(4).step) == (1, 3)
    again.check()


def test_lineages_are_numbered_through_even_if_a_checkpoint_does_not_know_the_last_ones() -> None:
    ledger = Ledger()
    for group in range(2):
        add_in_state(ledger, group, State.TRAINED, step=group + 1)
    checkpoint = ledger.snapshot()
    second = rolled_back(rolled_back(ledger, checkpoint, 1), checkpoint, 2)
    assert (second.lineage, second.forks) == (2, [0, 2, 2])
    add_in_state(second, 2, State.TRAINED, step=3)
    assert second.entry(2).lineage == 2
    second.check()


def test_settled_groups_are_forgotten_except_in_the_counts() -> None:
    ledger = Ledger()
    for group in range(1000):
        add_in_state(ledger, group, State.REJECTED if group % 10 == 0 else State.TRAINED, step=group // 10 + 1)
    add_in_state(ledger, 1000, State.READY)
    counts, reasons = ledger.counts(), ledger.rejections()
    ledger.settle()
    assert (ledger.counts(), ledger.rejections()) == (counts, reasons)
    assert len(ledger.snapshot()["entries"]) == 1
    assert len(json.dumps(ledger.snapshot())) < 400
    with pytest.raises(IllegalTransition, match="has all up to 1000"):
        ledger.add(17)
    restored = Ledger.restore(json.loads(json.dumps(ledger.snapshot())))
    assert (restored.counts(), restored.rejections(), restored.last_step()) == (counts, reasons, 100)


def test_a_step_before_the_fork_cannot_be_trained_again() -> None:
    ledger = Ledger()
    add_in_state(ledger, 0, State.TRAINED, step=1)
    ledger.fork(1, ledger.frontier)
    add_in_state(ledger, 1, State.READY)
    with pytest.raises(IllegalTransition, match="began after step 1"):
        ledger.train(1, 1)
    assert ledger.state(1) is State.READY


@pytest.mark.parametrize(
    ("position", "value"),
    [(1, "ready"), (2, 3), (2, -1), (3, "late"), (4, None), (4, 7), (5, None), (5, 0), (5, 2)],
)
def test_check_finds_a_corrupted_entry(position: int, value: object) -> None:
    ledger = Ledger()
    add_in_state(ledger, 0, State.TRAINED, step=1)
    ledger.fork(1, ledger.frontier)
    data = ledger.snapshot()
    assert data["entries"] == [[0, "trained", 0, None, 0, 1]]
    data["entries"][0][position] = value
    with pytest.raises(BrokenLedger, match="group 0"):
        Ledger.restore(data)


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([*MOVES, "add", "settle"])), max_size=60))
def test_any_history_keeps_the_invariants_and_survives_a_json_round_trip(history: list[tuple[int, str]]) -> None:
    ledger = Ledger()
    calls = {
        "add": ledger.add,
        "generate": ledger.generate,
        "score": ledger.score,
        "ready": ledger.ready,
        "train": lambda group: ledger.train(group, ledger.last_step() + 1),
        "reject": lambda group: ledger.reject(group, "late"),
        "requeue": lambda group: ledger.requeue(group, "engine died"),
        "fail": lambda group: ledger.fail(group, "timeout"),
        "settle": lambda _: ledger.settle(),
    }
    for argument, name in history:
        before = ledger.snapshot()
        try:
            calls[name](argument)
        except IllegalTransition:
            assert ledger.snapshot() == before
        ledger.check()
    restored = Ledger.restore(json.loads(json.dumps(ledger.snapshot())))
    assert restored.snapshot() == ledger.snapshot()
    assert restored.counts() == ledger.counts()


def test_counts_do_not_go_through_the_groups() -> None:
    ledger = Ledger()
    for group, state in enumerate([State.READY, State.TRAINED, State.REJECTED]):
        add_in_state(ledger, group, state)
    entries, ledger._entries = ledger._entries, None  # type: ignore[assignment]
    assert (ledger.counts()["ready"], ledger.rejections(), ledger.last_step()) == (1, {"unreadable": 1}, 1)
    ledger._entries = entries
    ledger._counts[State.READY] += 1
    with pytest.raises(BrokenLedger, match="counted"):
        ledger.check()
