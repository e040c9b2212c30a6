"""When checkpoints are saved, and what becomes of one that cannot be written."""

from __future__ import annotations

import errno
import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from learner.checkpoints import CheckpointConfig, Record, checkpoints, record_of
from learner.zero.background_writer import Written
from orchestration.supervision.checkpoint_writer import CheckpointFailed, CheckpointWriter


class Ranks:
    """Two ranks that write a file each as soon as they are told to, unless `full`; `busy` asks go unanswered."""

    limits = SimpleNamespace(save_s=2.0)

    def __init__(self) -> None:
        self.full, self.busy = False, 0
        self.shards = Path()

    def save(self, shards: Path) -> None:
        self.shards = shards
        for rank in range(2):
            (shards / f"rank-{rank}.pt").write_bytes(b"12")

    def saved(self, timeout_s: float) -> list[Written] | None:
        if self.busy:
            self.busy -= 1
            return None
        error = f"{self.shards}: No space left on device" if self.full else None
        return [Written({"rank-0.pt": 2}, 1.5), Written({"rank-1.pt": 2}, 2.5, error)]

    def record(self, state: Any, files: Any) -> Record:
        return Record("m", "b", 2, "float32", False, None, {}, state, files)


def writer(ranks: Any, folder: Path, config: CheckpointConfig | None = None, **more: Any) -> CheckpointWriter:
    return CheckpointWriter(ranks, folder, config or CheckpointConfig(), **more)


def test_checkpoints_are_due_by_steps_by_time_and_at_the_end(tmp_path: Path) -> None:
    now = [0.0]
    ranks = Ranks()
    by_both = writer(ranks, tmp_path, CheckpointConfig(every=4, minutes=10), clock=lambda: now[0])
    assert [step for step in range(1, 10) if by_both.due(step, False)] == [4, 8]
    now[0] = 600.0
    assert by_both.due(9, False)
    by_both.begin(9, {})
    assert not by_both.due(10, False), "the time counts from the last one"
    assert by_both.due(11, True)
    by_both.finish()
    assert not by_both.due(9, True), "which exists already"
    never = writer(ranks, tmp_path, CheckpointConfig(minutes=None), clock=lambda: 1e9)
    assert not any(never.due(step, last) for step in (1, 100) for last in (False, True))


def test_a_checkpoint_exists_once_all_ranks_have_written(tmp_path: Path) -> None:
    ranks = Ranks()
    saves = writer(ranks, tmp_path)
    ranks.busy = 1
    saves.begin(3, {"x": 1})
    saves.poll()
    assert checkpoints(tmp_path) == []
    saves.poll()
    record = Record.read(record_of(tmp_path, 3))
    assert (record.state, record.files) == ({"step": 3, "x": 1}, {"rank-0.pt": 2, "rank-1.pt": 2})
    assert saves.last_step == 3
    assert (saves.write_s, saves.metrics()["checkpoint/step"]) == (2.5, 3)


def test_the_next_checkpoint_waits_for_the_one_before(tmp_path: Path) -> None:
    ranks = Ranks()
    saves = writer(ranks, tmp_path)
    saves.begin(3, {})
    ranks.busy = 2
    saves.begin(4, {})
    assert [path.stem for path in checkpoints(tmp_path)] == ["step-000003"]
    saves.finish()
    assert [path.stem for path in checkpoints(tmp_path)] == ["step-000003", "step-000004"]


def test_a_full_disk_costs_that_checkpoint_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ranks = Ranks()
    saves = writer(ranks, tmp_path)
    saves.begin(3, {})
    saves.finish()
    ranks.full = True
    saves.begin(4, {})
    with caplog.at_level(logging.WARNING):
        saves.finish()
    (message,) = caplog.messages
    assert "No space left on device" in message
    assert "training goes on, the last checkpoint is of step 3" in message
    assert saves.failed == 1
    assert {path.name for path in tmp_path.iterdir()} == {"step-000003", "step-000003.json"}, "its room is free again"
    with pytest.raises(CheckpointFailed, match="step-000004"):
        saves.require(4)
    ranks.full = False
    saves.begin(5, {})
    saves.finish()
    saves.require(5)


def test_an_error_of_a_rank_is_judged_and_reported_by_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Wrapped(OSError):  # as Ray does it
        cause: OSError

    def fail(shards: Path) -> None:
        raise wrapped

    ranks, wrapped = Ranks(), Wrapped("the stack trace of a rank")
    monkeypatch.setattr(ranks, "save", fail)
    wrapped.cause = OSError(errno.ENOSPC, "No space left on device")
    with caplog.at_level(logging.WARNING):
        writer(ranks, tmp_path).begin(4, {})
    assert "cannot be written (No space left on device)" in caplog.messages[0]
    wrapped.cause = PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(PermissionError):
        writer(ranks, tmp_path).begin(5, {})


def test_a_folder_that_cannot_be_made_for_another_reason_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(code, "refused", "x")

    saves = writer(Ranks(), tmp_path)
    monkeypatch.setattr(Path, "mkdir", refuse)
    code = errno.ENOSPC
    saves.begin(3, {})
    assert saves.failed == 1
    code = errno.EACCES
    with pytest.raises(PermissionError):
        saves.begin(3, {})


def test_ranks_that_never_finish_are_not_waited_for_without_end(tmp_path: Path) -> None:
    ranks = Ranks()
    ranks.limits = SimpleNamespace(save_s=0.05)
    saves = writer(ranks, tmp_path)
    ranks.busy = 10**9
    saves.begin(3, {})
    with pytest.raises(CheckpointFailed, match=r"not written within 0.05 s \(limits.save_s\)"):
        saves.finish()


def test_shards_on_disks_of_other_machines_are_no_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ranks = Ranks()
    saves = writer(ranks, tmp_path)
    saves.begin(3, {})
    (ranks.shards / "rank-1.pt").unlink()
    saves.finish()
    assert (saves.failed, checkpoints(tmp_path)) == (1, [])
    assert "rank-1.pt: is missing" in caplog.text
    assert "must write to a disk that this machine sees, too" in caplog.text


def test_a_checkpoint_that_is_given_up_is_counted_and_due_again_after_its_time(tmp_path: Path) -> None:
    now = [0.0]
    saves = writer(Ranks(), tmp_path, CheckpointConfig(minutes=10), clock=lambda: now[0])
    now[0] = 600.0
    assert saves.due(3, False)
    saves.gave_up(3, "ledger.jsonl cannot be written")
    assert (saves.failed, saves.due(4, False)) == (1, False)
    now[0] = 1200.0
    assert saves.due(5, False)


def test_the_best_checkpoint_is_recorded_once_it_is_measured_and_whole(tmp_path: Path) -> None:
    ranks = Ranks()
    saves = writer(ranks, tmp_path, CheckpointConfig(keep=1, best="heldout/reward"))
    for step, value in ((1, 0.8), (2, 0.9), (4, 0.1), (6, 0.2)):
        saves.best.wait_for(step)
        ranks.busy = 1
        saves.begin(step, {})
        saves.best.measured(step, value)
        saves.poll()
        saves.poll()
        assert json.loads((tmp_path / "best.json").read_text())["step"] == min(step, 2)
    assert [path.stem for path in checkpoints(tmp_path)] == ["step-000002", "step-000006"]
