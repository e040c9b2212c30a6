"""The folder of a run: what counts as completed, and which runs may go on in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evaluation.faults import Faults
from evidence.errors import BadInput
from orchestration.commands.eval_record import opened, read_settings

SETTINGS: dict[str, Any] = {"data": "a.json", "limit": 3, "drawn": {"contract": {"frames": 8}, "seed": 0}}
FAILED = {"id": "2", "outcome": "missing", "path": "b.mp4", "reason": "no such file"}


def test_a_line_written_in_part_is_asked_again(tmp_path: Path) -> None:
    with opened(tmp_path, SETTINGS) as record:
        record.add({"id": "1", "text": "yes"})
        record.add(FAILED)
    with (tmp_path / "completions.jsonl").open("ab") as file:
        file.write(b'{"id": "3", "text": "n')
    with opened(tmp_path, SETTINGS) as record:
        assert set(record.lines) == {"1"}
        assert record.outcomes({"1", "2", "3"})["missing"] == 1
        faults = Faults()
        record.add_faults({"1", "2"}, faults)
        assert faults.report()[0]["first"] == "2, b.mp4: no such file"
        record.add({"id": "2", "text": "no"})
    with opened(tmp_path, SETTINGS) as record:
        assert set(record.lines) == {"1", "2"}
        assert record.outcomes({"1", "2"})["missing"] == 0
    assert (tmp_path / "completions.jsonl").read_text().count("\n") == 3


def test_other_settings_are_refused_and_another_limit_is_not(tmp_path: Path) -> None:
    with opened(tmp_path, SETTINGS):
        pass
    other = {**SETTINGS, "drawn": {"contract": {"frames": 16}, "seed": 0}}
    with pytest.raises(BadInput, match=r"contract\.frames = 8, not 16"), opened(tmp_path, other):
        pass
    with opened(tmp_path, {**SETTINGS, "limit": None}):
        assert read_settings(tmp_path)["limit"] is None


def test_a_folder_is_held_by_one_run(tmp_path: Path) -> None:
    with opened(tmp_path, SETTINGS), pytest.raises(BadInput, match="another process"), opened(tmp_path, SETTINGS):
        pass


def test_a_folder_without_a_record_cannot_be_scored_again(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"settings\.json"):
        read_settings(tmp_path)
