"""Conversions that are refused in one line for what a row or a target holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dataset_rows import SER

from evidence.errors import BadInput
from rollout.dataset.convert import convert
from rollout.dataset.read import DatasetFile


def written(folder: Path, **changes: Any) -> DatasetFile:
    (folder / "data.json").write_text(json.dumps([SER[1] | changes]))
    return DatasetFile(folder / "data.json")


@pytest.mark.parametrize(
    ("target", "words"),
    [("data.json", "exists already"), ("out.txt", "call it .jsonl"), ("no/out.json", "does not exist; make it")],
)
def test_a_target_that_cannot_be(tmp_path: Path, target: str, words: str) -> None:
    source = written(tmp_path)
    before = source.path.read_text()
    with pytest.raises(BadInput, match=words):
        convert(source, tmp_path / target, "ser")
    assert source.path.read_text() == before


@pytest.mark.parametrize(
    "target",
    [
        "/sys/out.json",
        "/proc/out.json",
        f"{'x' * 300}.json",
        f"{'x' * 249}.json",  # there is no room for .part
    ],
)
def test_a_target_that_cannot_be_written(tmp_path: Path, target: str) -> None:
    with pytest.raises(BadInput, match=r"(out|xxx)\.json: cannot be written \(.*\); name a file that can be"):
        convert(written(tmp_path), tmp_path / target, "ser")
    assert [path.name for path in tmp_path.iterdir()] == ["data.json"]


def test_a_link_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "out.json").symlink_to("out.json")
    with pytest.raises(BadInput, match="exists already"):
        convert(written(tmp_path), tmp_path / "out.json", "ser")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"duration": 1e300, "fps": 1e300}, r"duration \* fps must be a number, not inf"),
        ({"key_items": {"90": {"cup": [[0, 0, 1e308, 1]]}}}, "a box in pixels must be a number, not inf"),
    ],
)
def test_what_is_infinite_in_v_star(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    source = written(
        tmp_path, **({"video": "videos/a.mp4", "image_size": [640, 480], "fps": 25, "options": None} | changes)
    )
    with pytest.raises(BadInput, match=f"sample mine-7 cannot be written as v-star: {words}"):
        convert(source, tmp_path / "out.json", "v-star")
    assert [path.name for path in tmp_path.iterdir()] == ["data.json"]


def test_a_conversion_that_fails_late_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "data.json"
    source.write_text(json.dumps([*SER, SER[0] | {"task": None}]))
    with pytest.raises(BadInput, match="sample 3"):
        convert(DatasetFile(source), tmp_path / "out.jsonl", "ser")
    assert list(tmp_path.iterdir()) == [source]
