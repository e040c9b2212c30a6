"""What a checkpoint's record says, and what is refused because of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from evidence.errors import BadInput
from learner.checkpoints import (
    Record,
    Saved,
    checkpoints,
    prune_checkpoints,
    remove_checkpoint,
    require_same_model,
    universal,
)

PARAMETERS = {"a.weight": Saved((8, 4), "model.a.weight"), "b.weight": Saved((4,), "model.b.weight")}
RECORD = Record("/models/small", "a1", 2, "float32", False, None, PARAMETERS, {"step": 3})


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    RECORD.write(tmp_path / "step-000003.json")
    assert Record.read(tmp_path / "step-000003.json") == RECORD
    assert [path.name for path in tmp_path.iterdir()] == ["step-000003.json"]


def test_another_number_of_ranks_or_place_of_the_model_is_no_difference() -> None:
    here = replace(RECORD, ranks=3, model="/elsewhere", state={})
    require_same_model(Path("x"), RECORD, here)


@pytest.mark.parametrize(
    ("here", "told"),
    [
        (replace(RECORD, precision="bfloat16"), "saved with zero.precision = float32, this run has bfloat16"),
        (replace(RECORD, base="b2"), "training began from another model than lies in /models/small now"),
        (replace(RECORD, average=True), "saved without an average of them; set zero.ema as it was"),
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
def test_what_differs_is_named(here: Record, told: str) -> None:
    with pytest.raises(BadInput, match=f"^runs/x/step-000003.json: .*{told}"):
        require_same_model(Path("runs/x/step-000003.json"), RECORD, here)


def test_what_goes_goes_with_all_that_was_made_of_it(tmp_path: Path) -> None:
    for step in (2, 10, 4):
        record = tmp_path / f"step-{step:06d}.json"
        for folder in (record.with_suffix(""), universal(record), universal(record).with_suffix(".part")):
            folder.mkdir()
        RECORD.write(record)
    (tmp_path / "step-000010.json.part").touch()  # of a write that was interrupted
    prune_checkpoints(tmp_path, keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000004.json", "step-000010.json"]
    remove_checkpoint(tmp_path / "step-000010.json")
    assert {path.name.split(".")[0] for path in tmp_path.iterdir()} == {"step-000004"}
    remove_checkpoint(tmp_path / "step-000010.json")
