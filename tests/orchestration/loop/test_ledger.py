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
    State.READY: {"train", "reject"},
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
    with pytest.raises(IllegalTransition, match="3 is in the ledger already"):
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


def test_resume_voids_work_after_the_checkpoint_and_keeps_the_groups_it_holds() -> None:
    ledger = Ledger()
    for group in range(6):
        add_in_state(ledger, group, State.TRAINED, step=group // 2 + 1)
    add_in_state(ledger, 6, State.READY)
    add_in_state(ledger, 7, State.READY)
    add_in_state(ledger, 8, State.GENERATING)
    add_in_state(ledger, 9, State.SCORING)
    add_in_state(ledger, 10, State.PENDING)
    add_in_state(ledger, 11, State.REJECTED)
    add_in_state(ledger, 12, State.PENDING)

    # The checkpoint of step 2 was written when groups 4 (later trained in step 3), 6 and 12 were ready.
    assert ledger.resume(2, ready=[4, 6, 12]) == [5, 7, 8, 9]

    assert ledger.groups(State.TRAINED) == [0, 1, 2, 3]
    assert ledger.groups(State.READY) == [4, 6, 12]
    assert ledger.groups(State.PENDING) == [5, 7, 8, 9, 10]
    assert ledger.rejections() == {"unreadable": 1}
    assert ledger.requeues == {"regenerated": 4}
    assert (ledger.entry(5).lineage, ledger.entry(5).step) == (None, None)
    ledger.train(4, 3)
    assert (ledger.entry(4).lineage, ledger.entry(4).step) == (1, 3)
    ledger.check()


def test_a_second_rollback_can_go_further_back_than_the_first() -> None:
    ledger = Ledger()
    for group in range(4):
        add_in_state(ledger, group, State.TRAINED, step=group + 1)
    ledger.resume(3)
    add_in_state(ledger, 4, State.TRAINED, step=4)
    assert ledger.resume(1) == [1, 2, 4]
    assert ledger.groups(State.PENDING) == [1, 2, 3, 4]
    assert ledger.forks == [0, 3, 1]
    assert ledger.lineage == 2
    ledger.check()


def test_a_refused_resume_leaves_the_ledger_unchanged() -> None:
    ledger = Ledger()
    add_in_state(ledger, 0, State.TRAINED, step=1)
    add_in_state(ledger, 1, State.TRAINED, step=2)
    before = ledger.snapshot()
    for step, ready, message in (
        (3, [], "steps 0 to 2"),
        (-1, [], "steps 0 to 2"),
        (1, [0], "0 is ready"),
        (1, [9], "9 is"),
    ):
        with pytest.raises(IllegalTransition, match=message):
            ledger.resume(step, ready)
    assert ledger.snapshot() == before


def test_a_step_before_the_fork_cannot_be_trained_again() -> None:
    ledger = Ledger()
    add_in_state(ledger, 0, State.TRAINED, step=1)
    ledger.resume(1)
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
    ledger.resume(1)
    data = ledger.snapshot()
    assert data["entries"] == [[0, "trained", 0, None, 0, 1]]
    data["entries"][0][position] = value
    with pytest.raises(BrokenLedger, match="group 0"):
        Ledger.restore(data)


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([*MOVES, "add", "resume"])), max_size=60))
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
        "resume": lambda step: ledger.resume(step, ledger.groups(State.READY)[:1]),
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
    assert sum(ledger.counts().values()) == len(ledger.snapshot()["entries"])


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
