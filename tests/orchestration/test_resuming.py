"""resume=no|auto|STEP: which checkpoint is taken, and what may differ from the run that goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_runs import started

from evidence.errors import BadInput
from evidence.lines import records
from learner.checkpoints import Record, checkpoints, record_of
from learner.checkpoints import step_of as step_of_record
from orchestration import train
from orchestration.config import load_config, to_yaml
from orchestration.loop.journal import JOURNAL
from orchestration.loop.run_state import RunState
from orchestration.resuming import (
    CHECKPOINTS,
    DECIDES_PIXELS,
    MAY_CHANGE,
    Start,
    drop_later,
    require_same_config,
    require_unchanged,
)
from orchestration.settings import TrainConfig

DATA = {"train.json": "a1"}


def config(*overrides: str) -> TrainConfig:
    return load_config(TrainConfig, "configs/experiment/quickstart.yaml", ["run_dir=runs/x", *overrides])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run with whole checkpoints of steps 2 and 4."""
    (tmp_path / "config.yaml").write_text(to_yaml(config()))
    for step in (2, 4):
        record = record_of(tmp_path / CHECKPOINTS, step)
        record.with_suffix("").mkdir(parents=True)
        (record.with_suffix("") / "shard.pt").write_bytes(b"12345")
        state = RunState(step=step, version=step, data=DATA).plain()
        Record("m", "b", 1, "float32", False, None, {}, state, {"shard.pt": 5}).write(record)
    return tmp_path


def step_of(start: Start) -> int | None:
    return start.state.step if start.state else None


def test_a_folder_with_a_run_is_refused_unless_it_is_to_be_resumed(run: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="already holds a run; go on with it by resume=auto"):
        Start.found(run, "no")
    for resume in ("no", "auto"):
        fresh = Start.found(tmp_path / "new", resume)
        assert (fresh.again, fresh.record) == (False, None)


def test_auto_takes_the_newest_checkpoint_that_is_whole(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert step_of(Start.found(run, "auto")) == 4
    shard = run / CHECKPOINTS / "step-000004/shard.pt"
    shard.write_bytes(b"123")
    assert step_of(Start.found(run, "auto")) == 2
    assert "shard.pt: holds 3 bytes, and held 5 when the checkpoint was written" in capsys.readouterr().err
    shard.unlink()
    assert step_of(Start.found(run, "auto")) == 2
    (run / CHECKPOINTS / "step-000002.json").write_text("{")
    with pytest.raises(BadInput, match=r"checkpoints: none of its 2 checkpoints can be read; restore one"):
        Start.found(run, "auto")
    for record in (run / CHECKPOINTS).glob("*.json"):
        record.unlink()
    start = Start.found(run, "auto")
    assert (start.again, start.record) == (True, None), "without a checkpoint the run starts afresh"


def test_a_step_names_its_checkpoint_and_what_lies_after_it_goes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert step_of(Start.found(run, "2")) == 2
    with pytest.raises(BadInput, match="no checkpoint of this step; its checkpoints: 2, 4"):
        Start.found(run, "3")
    (run / CHECKPOINTS / "step-000002/shard.pt").unlink()
    with pytest.raises(BadInput, match=r"shard.pt: is missing"):
        Start.found(run, "2")
    drop_later(run, 2)
    assert "the checkpoints of steps 4 are removed" in capsys.readouterr().err
    assert [path.name for path in (run / CHECKPOINTS).glob("*.json")] == ["step-000002.json"]


@pytest.mark.parametrize(
    "change", ["steps=500", "cluster.rollout_engines=3", "learner.ranks=1", "limits.step_s=7", "checkpoint.every=3"]
)
def test_a_resumed_run_may_change_its_length_and_its_machines(run: Path, change: str) -> None:
    key = change.split("=")[0]
    (told,) = require_same_config(run, config(change), MAY_CHANGE, DECIDES_PIXELS)
    assert told.startswith(f"{key} = ")


@pytest.mark.parametrize(
    "change",
    ["seed=7", "sampling.group_size=4", "learner.schedule.lr=1", "frames.decoder=pyav", "pacing.staleness=0"],
)
def test_any_other_change_is_refused_with_both_values(run: Path, change: str) -> None:
    key, value = change.split("=")
    with pytest.raises(BadInput, match=rf"^{key} = {value}.*: the run in .* was started with .*may change steps, "):
        Start.found(run, "auto").require_same(config(change), DATA)


def test_a_changed_data_file_and_fewer_steps_are_refused(run: Path) -> None:
    start = Start.found(run, "auto")
    start.require_same(config(), DATA)
    with pytest.raises(BadInput, match=r"^train.json: has changed since the run began"):
        start.require_same(config(), {"train.json": "b2"})
    with pytest.raises(BadInput, match=r"^steps = 3: the checkpoint .*step-000004.json is of step 4"):
        start.require_same(config("steps=3"), DATA)


def test_a_finished_run_has_nothing_left_to_do(run: Path) -> None:
    start = Start.found(run, "auto")
    assert not start.finished(config("steps=4"))
    (run / "summary.json").write_text("{}")
    assert start.finished(config("steps=4"))
    assert not start.finished(config("steps=6"))


def test_a_finished_run_without_checkpoints_is_not_trained_again(run: Path) -> None:
    for record in (run / CHECKPOINTS).glob("*.json"):
        record.unlink()
    start, steps = Start.found(run, "auto"), config().steps
    assert not start.finished(config()), "it was killed before its first checkpoint"
    (run / "summary.json").write_text("{}")
    assert start.finished(config())
    with pytest.raises(BadInput, match=rf"has finished its {steps} steps and left no checkpoint to go on from"):
        start.finished(config(f"steps={steps + 1}"))


def test_a_checkpoint_saved_while_the_run_was_starting_is_not_removed(run: Path) -> None:
    start = Start.found(run, "auto")
    require_unchanged(run, "auto", start.record)
    record = record_of(run / CHECKPOINTS, 4)
    later = record_of(run / CHECKPOINTS, 6)
    later.write_text(record.read_text())
    record.with_suffix("").rename(later.with_suffix(""))
    with pytest.raises(BadInput, match="another process has saved or removed checkpoints meanwhile; start again"):
        require_unchanged(run, "auto", start.record)


@pytest.mark.parametrize("resume", ["yes", "-3", "latest", ""])
def test_another_value_of_resume_is_refused(resume: str) -> None:
    with pytest.raises(BadInput, match=r"resume = .*: must be no, auto, or the step of a checkpoint"):
        config(f"resume={resume}")


def test_no_checkpoint_is_removed_before_the_one_to_go_on_from_is_loaded(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse() -> None:
        begun, training = started(run, bool, bool, 9)
        begun.start, parts = Start.found(run, "2"), training.parts
        parts.learner.gang = SimpleNamespace(load=load)  # type: ignore[assignment]
        monkeypatch.setattr(train, "start_parts", lambda *_: asyncio.sleep(0, parts))
        await begun.run()

    def load(record: Path) -> None:
        assert record.stem == "step-000002"
        raise BadInput(f"{record}: training began from another model")

    with pytest.raises(BadInput, match="another model"):
        asyncio.run(refuse())
    assert [step_of_record(record) for record in checkpoints(run / CHECKPOINTS)] == [2, 4]
    assert not list(records(run / JOURNAL)), "no new lineage has begun"
