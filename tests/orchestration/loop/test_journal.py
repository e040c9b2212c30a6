"""The journal: replayed, it agrees with the ledger in memory; and the audit finds every kind of fault."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence import lines as evidence_lines
from evidence.errors import BadInput
from evidence.lines import AppendedLines, records
from orchestration.loop.journal import JOURNAL, Fate, Journal, Reached, audit, checkpoint_line, fates, reached
from orchestration.loop.ledger import IllegalTransition, Ledger

MOVES = ("add", "generate", "score", "ready", "train", "reject", "requeue", "fail", "checkpoint", "restart")


def live(ledger: Ledger) -> dict[int, str]:
    """The states of the groups that the ledger has not forgotten."""
    return {group: state for group, state, *_ in ledger.snapshot()["entries"]}


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(MOVES)), max_size=80))
def test_replayed_any_history_with_restarts_gives_the_states_of_the_ledger(history: list[tuple[int, str]]) -> None:
    lines: list[dict[str, Any]] = []
    ledger = Ledger(lines.append)
    checkpoints = {0: ledger.snapshot()}
    version = step = 0
    settled: dict[int, dict[int, str]] = {0: {}}  # of each checkpoint: the states that its ledger has forgotten
    done: dict[int, str] = {}
    for number, move in history:
        if move == "checkpoint":
            done |= {group: state for group, state in live(ledger).items() if state in ("trained", "rejected")}
            ledger.settle()
            checkpoints[step], settled[step] = ledger.snapshot(), dict(done)
            lines.append(checkpoint_line(step, reached(lines)))
            continue
        if move == "restart":
            step = max(at for at in checkpoints if at <= number)
            checkpoints = {at: data for at, data in checkpoints.items() if at <= step}
            far = reached(lines)
            version = far.version + 1
            lines.append({"lineage": far.lineages, "step": step, "version": version})
            ledger, done = Ledger.restore(json.loads(json.dumps(checkpoints[step])), lines.append), dict(settled[step])
            ledger.fork(far.lineages, far.frontier)
            continue
        try:
            if move == "add":
                ledger.add(ledger.frontier, f"s{ledger.frontier}")
            elif move == "train":
                ledger.train(number, step + 1)
                step += 1
            elif move in ("reject", "requeue", "fail"):
                getattr(ledger, move)(number, "why")
            else:
                getattr(ledger, move)(number)
        except IllegalTransition:
            continue
    told = {group: fate.state for group, fate in fates(lines).items()}
    assert told == done | live(ledger)
    since = [line for line in lines if "checkpoint" not in line]
    assert reached(lines) == reached(since), "a checkpoint tells what the lines before it tell"


def test_what_a_run_has_reached_includes_what_was_abandoned(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    ledger = Ledger(journal.move)
    for group in range(6):
        ledger.add(group, f"s{group}")
    for group, step in ((0, 1), (1, 2), (2, 3)):
        ledger.generate(group)
        ledger.score(group)
        ledger.ready(group)
        ledger.train(group, step)
    assert reached(records(tmp_path / JOURNAL)) == Reached(version=3, frontier=6, lineages=1)
    journal.lineage(1, 1, 4)
    assert reached(records(tmp_path / JOURNAL)) == Reached(4, 6, 2, first=4, fork=1)
    journal.move({"group": 1, "state": "trained", "lineage": 1, "step": 2})
    assert reached(records(tmp_path / JOURNAL)).version == journal.reached.version == 5
    journal.close()
    assert Journal(tmp_path).reached == journal.reached


@pytest.mark.parametrize("torn", ["", '{"checkpoint": 2, "rea\n'])
def test_a_start_does_not_read_what_came_before_the_last_checkpoint(
    tmp_path: Path, torn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    for group in range(4):
        journal.move({"group": group, "sample": "s", "state": "pending"})
        if group < 2:
            journal.move({"group": group, "state": "trained", "lineage": 0, "step": group + 1})
            journal.checkpoint(group + 1)
    journal.close()
    with (tmp_path / JOURNAL).open("a") as file:
        file.write(torn + '{"group": 3, "state": "trained", "lineage": 0, "step": 4}\n')
    read, parse = [], evidence_lines._record
    monkeypatch.setattr(evidence_lines, "_record", lambda line: read.append(line) or parse(line))
    assert Journal(tmp_path).reached == Reached(4, 4)
    assert not [line for line in read if b'"group": 0' in line or b'"group": 1' in line]


def test_the_journal_of_another_version_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text('{"checkpoint": 2}\n')
    with pytest.raises(BadInput, match=r"ledger.jsonl: was written by another version of SER"):
        Journal(tmp_path)


def test_a_full_disk_hides_nothing_of_what_was_reached_and_allows_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    assert journal.checkpoint(0)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(AppendedLines, "_append", full)
        journal.move({"group": 0, "sample": "s0", "state": "pending"})
        journal.move({"group": 0, "state": "trained", "lineage": 0, "step": 1})
        assert (journal.reached.version, journal.reached.frontier) == (1, 1)
        assert not journal.checkpoint(1)
    assert journal.checkpoint(2)
    assert [line.get("checkpoint") for line in records(tmp_path / JOURNAL)] == [0, None, None, 1, 2]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"lineage": 1, "step": 4, "version": 9}], "goes back to the checkpoint of step 4, which it does not hold"),
        ([{"group": 7, "state": "ready"}], "has no line that adds group 7"),
    ],
)
def test_a_ledger_that_lost_lines_says_so(lines: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        fates(lines)


def trained(*steps: int) -> dict[int, Fate]:
    return {group: Fate(f"s{group}", "trained", None, 0, step) for group, step in enumerate(steps)}


def steps(*numbers: int) -> list[dict[str, int]]:
    return [{"step": number} for number in numbers]


def test_a_sound_run_passes_the_audit() -> None:
    rejected = {4: Fate("s4", "rejected", "poison")}
    assert audit(trained(1, 1, 2, 2) | rejected, steps(1, 2), 2, finished=True) == []
    assert audit(trained(1, 1) | {2: Fate("s2", "generating")}, steps(1), 2, finished=False) == []
    for groups in (trained(1, 1, 2, 2), trained(1, 1, 2)):  # killed while its last step was recorded
        assert audit(groups, steps(1), 2, finished=False) == []


def test_a_run_that_is_going_back_to_a_checkpoint_passes_the_audit(tmp_path: Path) -> None:
    """metrics.jsonl loses the lines of the abandoned steps only once engines and learner have been compared."""
    journal = Journal(tmp_path)
    for group in range(3):
        journal.move({"group": group, "sample": "s", "state": "pending"})
        journal.move({"group": group, "state": "trained", "lineage": 0, "step": group + 1})
        journal.checkpoint(group + 1)
    journal.lineage(1, 1, 4)
    going_back = fates(records(tmp_path / JOURNAL))
    assert audit(going_back, steps(1, 2, 3), 1, finished=False) == []
    assert audit(going_back, steps(1, 1, 2), 1, finished=False) != [], "a surviving step has one line"


@pytest.mark.parametrize(
    ("groups", "metrics", "fault"),
    [
        (trained(1, 1, 2), steps(1, 2), "step 2 trained 1 groups, not 2"),
        (trained(1, 1, 2, 2, 2), steps(1, 2), "step 2 trained 3 groups"),
        (trained(1, 1, 3, 3), steps(1, 3), "1 steps have no groups although later ones have, step 2 first"),
        (trained(1, 1) | {3: Fate("s3", "rejected", "poison")}, steps(1), "1 groups were lost, group 2 first"),
        (trained(1, 1) | {2: Fate("s2", "rejected")}, steps(1), "without a reason"),
        (trained(1, 1) | {2: Fate("s2", "ready")}, steps(1), "group 2 is ready, and the run has ended"),
        (trained(1, 1, 2, 2), steps(1, 2, 2), "line 3 has step 2, and step none is due"),
        (trained(1, 1, 2, 2), steps(1), "line 2 has step none, and step 2 is due"),
        (trained(1, 1, 2, 2), steps(2, 1), "line 1 has step 2, and step 1 is due"),
    ],
)
def test_the_audit_names_each_kind_of_fault(groups: dict[int, Fate], metrics: list[dict[str, int]], fault: str) -> None:
    (problem,) = audit(groups, metrics, 2, finished=True)
    assert fault in problem
