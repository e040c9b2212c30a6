"""Records of checkpoints: round trip, refusal of mismatched runs, and removal."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest

from evidence.errors import BadInput
from evidence.files import PART
from learner.checkpoints import (
    CheckpointConfig,
    Record,
    Saved,
    checkpoints,
    prune_checkpoints,
    record_of,
    remove_checkpoint,
    remove_unfinished,
    require_same_model,
    step_of,
    universal,
)

PARAMETERS = {"a.weight": Saved((8, 4), "model.a.weight"), "b.weight": Saved((4,), "model.b.weight")}
RECORD = Record("/models/small", "a1", 2, "float32", False, None, PARAMETERS, {"step": 3}, {"shard.pt": 5})


def test_a_record_survives_writing_and_reading(tmp_path: Path) -> None:
    RECORD.write(tmp_path / "step-000003.json")
    assert Record.read(tmp_path / "step-000003.json") == RECORD
    assert [path.name for path in tmp_path.iterdir()] == ["step-000003.json"]


def test_another_number_of_ranks_or_model_folder_is_accepted() -> None:
    here = replace(RECORD, ranks=3, model="/elsewhere", state={})
    require_same_model(Path("x"), RECORD, here)


@pytest.mark.parametrize(
    ("here", "message"),
    [
        (replace(RECORD, precision="bfloat16"), "saved with zero.precision = float32, this run has bfloat16"),
        (replace(RECORD, base="b2"), "training began from another model than /models/small holds now"),
        (replace(RECORD, average=True), "saved without one; set zero.ema as it was"),
        (
            replace(RECORD, parameters={**PARAMETERS, "b.weight": Saved((6,), "model.b.weight")}),
            r"b.weight is \[4\] there, and \[6\] here",
        ),
        (replace(RECORD, parameters={"a.weight": PARAMETERS["a.weight"]}), r"b.weight is \[4\] there, and not trained"),
        (
            replace(RECORD, parameters={**PARAMETERS, "a.lora_A": Saved((2, 4), "model.a.lora_A.weight")}),
            r"adapter: a.lora_A is not trained there, and \[2, 4\] here",
        ),
    ],
)
def test_a_mismatched_run_is_refused_and_the_difference_named(here: Record, message: str) -> None:
    with pytest.raises(BadInput, match=f"^runs/x/step-000003.json: .*{message}"):
        require_same_model(Path("runs/x/step-000003.json"), RECORD, here)


def test_removing_a_checkpoint_removes_all_files_derived_from_it(tmp_path: Path) -> None:
    for step in (2, 10, 4):
        record = tmp_path / f"step-{step:06d}.json"
        for folder in (
            record.with_suffix(""),
            universal(record),
            universal(record).with_name(universal(record).name + PART),
        ):
            folder.mkdir()
        RECORD.write(record)
    (tmp_path / "step-000010.json.part").touch()  # left by an interrupted write
    prune_checkpoints(tmp_path, CheckpointConfig(keep=2))
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000004.json", "step-000010.json"]
    remove_checkpoint(tmp_path / "step-000010.json")
    assert {path.name.split(".")[0] for path in tmp_path.iterdir()} == {"step-000004"}
    remove_checkpoint(tmp_path / "step-000010.json")


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        (CheckpointConfig(keep=1), [1_000_000]),
        (CheckpointConfig(keep=2, keep_every=100), [10, 110, 200, 999_990, 1_000_000]),
        (CheckpointConfig(keep=1, keep_every=1000), [10, 999_990, 1_000_000]),
    ],
)
def test_the_newest_checkpoints_are_kept_and_one_of_every_so_many_steps(
    tmp_path: Path, config: CheckpointConfig, kept: list[int]
) -> None:
    for step in (10, 50, 110, 120, 200, 290, 999_990, 1_000_000):
        RECORD.write(record_of(tmp_path, step))
        record_of(tmp_path, step).with_suffix("").mkdir()
    for _ in range(2):  # what was kept once is kept again
        prune_checkpoints(tmp_path, config)
        assert [step_of(path) for path in checkpoints(tmp_path)] == kept


@pytest.mark.parametrize("values", [{"every": 0}, {"minutes": 0.0}, {"keep": 0}, {"keep_every": 0}])
def test_a_rule_that_cannot_hold_is_refused(values: dict[str, int]) -> None:
    with pytest.raises(BadInput):
        CheckpointConfig(**values)


def test_what_a_kill_leaves_of_a_checkpoint_is_removed(tmp_path: Path) -> None:
    RECORD.write(record_of(tmp_path, 3))
    for name in ("step-000003", "step-000004", "step-000005.universal.part", "step-000004-backup", "notes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "shard.pt").touch()
    (tmp_path / "step-000006.json.4711.part").touch()
    remove_unfinished(tmp_path)
    kept = {path.name for path in tmp_path.iterdir()}
    assert kept == {"step-000003", "step-000003.json", "step-000004-backup", "notes"}


def test_shards_that_cannot_be_removed_end_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2, 3):
        RECORD.write(record_of(tmp_path, step))
        record_of(tmp_path, step).with_suffix("").mkdir()

    def busy(path: Path) -> None:
        raise OSError(errno.ENOTEMPTY, "Directory not empty", str(path))

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", busy)
        prune_checkpoints(tmp_path, CheckpointConfig(keep=1))
    assert [step_of(record) for record in checkpoints(tmp_path)] == [3]
    assert len(caplog.messages) == 2
    remove_unfinished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"step-000003", "step-000003.json"}
