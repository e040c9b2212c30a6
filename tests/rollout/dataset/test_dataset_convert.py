"""Conversion between formats: lossless, or refused with a one-line message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dataset_rows import ROWS, SER, TIME_R1, V_STAR, write

from evidence.errors import BadInput
from rollout.dataset import read_dataset
from rollout.dataset.convert import convert, lost
from rollout.dataset.read import DatasetFile


def written(folder: Path, **changes: Any) -> DatasetFile:
    (folder / "data.json").write_text(json.dumps([SER[1] | changes]))
    return DatasetFile(folder / "data.json")


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_every_sample_survives_conversion_to_ser_and_back(tmp_path: Path, name: str, suffix: str) -> None:
    source = write(tmp_path, ROWS[name])
    ours, again = tmp_path / f"ours.{suffix}", tmp_path / f"again.{suffix}"
    assert convert(DatasetFile(source), ours, "ser").samples == len(ROWS[name])
    convert(DatasetFile(ours), again, name)
    samples = read_dataset(source)
    assert read_dataset(ours) == samples
    back = list(DatasetFile(again, name))
    assert [lost(a, b) for a, b in zip(samples, back, strict=True)] == [[]] * len(samples)
    assert not list(tmp_path.glob("*.part"))


def test_v_star_rows_are_written_as_they_were_read(tmp_path: Path) -> None:
    convert(DatasetFile(write(tmp_path, V_STAR)), tmp_path / "again.json", "v-star")
    (row,) = json.loads((tmp_path / "again.json").read_text())
    expected = {key: value for key, value in V_STAR[0].items() if key != "chain"}
    assert row == expected | {"bboxes": [box | {"frame_index": str(box["frame_index"])} for box in expected["bboxes"]]}


def test_a_conversion_reports_the_keys_that_a_sample_cannot_hold(tmp_path: Path) -> None:
    done = convert(DatasetFile(write(tmp_path, TIME_R1 * 2)), tmp_path / "ours.jsonl", "ser")
    assert done.unread == {"difficulty": 2, "pred": 2}


@pytest.mark.parametrize(
    ("name", "to", "words"),
    [
        ("video-r1", "open-o3", ["sample 2", "open-o3 cannot hold its options", "convert to ser"]),
        ("open-o3", "video-r1", ["sample 0", "cannot hold its image_size"]),
        ("open-o3", "time-r1", ["sample 0", "cannot be written as time-r1", "no time span"]),
        ("open-o3", "v-star", ["sample 0", "cannot be written as v-star", "lacks fps"]),
        (
            "v-star",
            "easyvideor1",
            ["sample 3783730077", "key_frames, key_items, spans, duration, fps, domain, follow_ups"],
        ),
        ("ser", "v_star", ["format = v_star", "one of ser, open-o3"]),
    ],
)
def test_a_format_that_cannot_hold_a_sample_is_refused_and_nothing_written(
    tmp_path: Path, name: str, to: str, words: list[str]
) -> None:
    source = write(tmp_path, ROWS[name])
    with pytest.raises(BadInput) as refusal:
        convert(DatasetFile(source), tmp_path / "out.json", to)
    assert all(word in str(refusal.value) for word in words), refusal.value
    assert list(tmp_path.iterdir()) == [source]


def test_a_conversion_does_not_move_media(tmp_path: Path) -> None:
    (tmp_path / "world").mkdir()
    source = write(tmp_path / "world", SER[:1])
    convert(DatasetFile(source), tmp_path / "above.json", "ser")
    assert json.loads((tmp_path / "above.json").read_text())[0]["video"] == "world/clips/a.mp4"
    (tmp_path / "beside").mkdir()
    with pytest.raises(BadInput, match=r"media .*/world/clips/a\.mp4 is not below .*/beside; write the file"):
        convert(DatasetFile(source), tmp_path / "beside/out.json", "ser")


@pytest.mark.parametrize(
    ("target", "words"),
    [("data.json", "exists already"), ("out.txt", "must end in .jsonl"), ("no/out.json", "does not exist; make it")],
)
def test_an_invalid_target_is_refused(tmp_path: Path, target: str, words: str) -> None:
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
        f"{'x' * 249}.json",  # too long with .part added
    ],
)
def test_an_unwritable_target_is_refused(tmp_path: Path, target: str) -> None:
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
def test_values_that_are_infinite_in_v_star_are_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    source = written(
        tmp_path, **({"video": "videos/a.mp4", "image_size": [640, 480], "fps": 25, "options": None} | changes)
    )
    with pytest.raises(BadInput, match=f"sample mine-7 cannot be written as v-star: {words}"):
        convert(source, tmp_path / "out.json", "v-star")
    assert [path.name for path in tmp_path.iterdir()] == ["data.json"]


def test_a_conversion_that_fails_late_leaves_no_file(tmp_path: Path) -> None:
    source = tmp_path / "data.json"
    source.write_text(json.dumps([*SER, SER[0] | {"task": None}]))
    with pytest.raises(BadInput, match="sample 3"):
        convert(DatasetFile(source), tmp_path / "out.jsonl", "ser")
    assert list(tmp_path.iterdir()) == [source]
