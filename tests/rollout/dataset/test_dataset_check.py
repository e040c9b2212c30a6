"""Findings of a dataset check, with and without decoding the media."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import cv2
import moody_decoder
import numpy as np
import pytest
from frame_folders import write_frames
from PIL import Image

from evidence.errors import UnreadableMedia
from evidence.sampling import SamplingContract, Selection
from evidence.types import FrameInfo
from rollout.dataset import media
from rollout.dataset.check import Report, add_media, check, media_of, problems
from rollout.dataset.media import decoded, decoded_frames, shared
from rollout.dataset.read import DatasetFile
from rollout.frames.config import FramesConfig
from rollout.frames.decoding import decode, decode_with, examine

CONTRACT = SamplingContract(multiple=28)
ROW = {"id": "a", "task": "t", "question": "What?", "answer": "It.", "video": "v.mp4"}


def checked(folder: Path, *rows: dict[str, Any]) -> Report:
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return check(DatasetFile(folder / "data.jsonl", "ser"))[0]


def test_counts_and_missing_media(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"anything")
    report = checked(
        tmp_path, ROW, ROW | {"id": "b", "question": "Who?", "source": "s"}, ROW | {"id": "c", "video": "w"}
    )
    assert (report.n, report.format, report.by_task, report.by_source) == (3, "ser", {"t": 3}, {"unknown": 2, "s": 1})
    assert report.missing_media == [str(tmp_path / "w")]
    long = "x" * 300
    assert checked(tmp_path, ROW | {"video": long}).missing_media == [str(tmp_path / long)]
    assert (report.duplicates, report.unreadable_media, report.boxes_outside, report.times_outside) == ([], {}, 0, 0)


def test_boxes_of_frames_without_a_time_are_counted(tmp_path: Path) -> None:
    boxes = {"cup": [[0.1, 0.1, 0.2, 0.2]]}
    row = ROW | {"key_frames": [{"idx": "30", "time": 1.0}], "key_items": {"30": boxes, "60": boxes, "90": boxes}}
    assert checked(tmp_path, row, ROW | {"id": "b", "key_items": {"30": boxes}}).items_without_frame == 3
    assert checked(tmp_path, row | {"key_items": {"30": boxes}}).items_without_frame == 0


def test_an_empty_file_is_unreadable_without_decoding(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").touch()
    assert checked(tmp_path, ROW).unreadable_media == {str(tmp_path / "v.mp4"): "the file is empty"}


def test_a_folder_of_frames_is_media_if_every_sample_of_it_states_its_rate(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "clip", 7)
    row = ROW | {"video": "clip", "fps": 3, "spans": [[0, 2], [1, 2.5]]}
    report = checked(tmp_path, row, row | {"id": "b", "question": "Who?"})
    assert (report.missing_media, report.unreadable_media, report.times_outside) == ([], {}, 0)
    samples = list(DatasetFile(tmp_path / "data.jsonl"))
    results = dict(decoded(media_of(samples), CONTRACT, 1, timeout_s=60, memory_bytes=2**30))
    add_media(report, samples, results)
    assert results[str(folder)].duration == pytest.approx(2.333)
    assert (report.unreadable_media, report.times_outside) == ({}, 2)
    wanted = [(str(folder), Selection(fps=3.0))]
    frames, info = next(decoded_frames(wanted, CONTRACT, FramesConfig()))[1]
    np.testing.assert_array_equal(frames, decode(str(folder), CONTRACT, Selection(fps=3.0))[0])
    assert info == results[str(folder)]

    report = checked(tmp_path, row, row | {"id": "b", "question": "Who?", "fps": None})
    assert report.unreadable_media == {str(folder): "is a folder of frames, and a sample of it states no 'fps'"}
    samples = list(DatasetFile(tmp_path / "data.jsonl"))
    add_media(report, samples, dict(decoded(media_of(samples), CONTRACT, 1, timeout_s=60, memory_bytes=2**30)))
    assert list(report.unreadable_media) == [str(folder)]


def test_duplicates_are_found_by_id_and_by_question(tmp_path: Path) -> None:
    others = [
        ROW | {"id": "b"},  # the same question about the same video
        ROW | {"question": "Who?"},  # the same id
        ROW | {"id": "c", "video": "w.mp4"},
        ROW | {"id": "d", "options": ["A. it"]},
    ]
    assert checked(tmp_path, ROW, *others).duplicates == ["a", "b"]


@pytest.mark.parametrize(
    ("changes", "outside"),
    [
        ({"key_items": {"0": {"x": [[0, 0, 1, 1]], "y": [[0.1, 0.1, 0.2, 0.2]]}}}, 0),
        ({"key_items": {"0": {"x": [[0.5, 0.5, 1.5, 0.9], [-0.1, 0, 1, 1]], "y": [[0.5, 0.1, 0.4, 0.2]]}}}, 3),
        ({"key_items": {"0": {"x": [[0.5, 0.5, 0.5, 0.9]]}}}, 1),
        ({"answer": "<obj>x</obj><box>[10, 10, 640, 480]</box>", "image_size": [640, 480]}, 0),
        ({"answer": "<obj>x</obj><box>[10, 10, 641, 480]</box>", "image_size": [640, 480]}, 1),
        ({"answer": "<box>[10, 10]</box> <box>[a]</box>", "image_size": [640, 480]}, 2),
        ({"answer": "<obj>x</obj><box>[10, 10, 641, 480]</box>"}, 0),  # in an unknown space
    ],
)
def test_boxes_outside_their_space(tmp_path: Path, changes: dict[str, Any], outside: int) -> None:
    assert checked(tmp_path, ROW | changes).boxes_outside == outside


@pytest.mark.parametrize(
    ("changes", "outside"),
    [
        ({"spans": [[0, 5]], "duration": 5}, 0),
        ({"spans": [[0, 5.2], [4, 3]], "duration": 5}, 2),
        ({"spans": [[-1, 5], [0, 1e9]]}, 1),  # the end is unknown
        ({"key_frames": [{"idx": "1", "time": 6}, {"idx": "2", "time": 4}], "duration": 5}, 1),
        ({"video": None, "image": "a.png", "key_frames": [{"idx": "0", "time": 1}], "duration": 0}, 0),
    ],
)
def test_times_outside_the_video(tmp_path: Path, changes: dict[str, Any], outside: int) -> None:
    assert checked(tmp_path, ROW | changes).times_outside == outside


def write_video(path: Path, frames: int, shade: int = 0) -> str:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    for n in range(frames):
        writer.write(np.full((48, 64, 3), (shade + n) % 255, np.uint8))
    writer.release()
    return str(path)


def test_decoding_the_media_adds_to_the_report(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", 20)
    (tmp_path / "w.mp4").write_text("not a video")
    rows = [ROW | {"spans": [[0, 2], [1, 3]], "duration": 9}, ROW | {"id": "b", "video": "w.mp4", "spans": [[0, 99]]}]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    report, samples = check(DatasetFile(tmp_path / "data.jsonl"))
    assert report.times_outside == 0
    results = dict(decoded(media_of(samples), CONTRACT, 2, timeout_s=60, memory_bytes=2**30))
    add_media(report, samples, results)
    assert report.times_outside == 1
    assert list(report.unreadable_media) == [str(tmp_path / "w.mp4")]
    assert results[str(tmp_path / "v.mp4")].duration == pytest.approx(2.0)


def test_frames_are_those_of_a_run_with_the_decoder_that_is_tried_first(tmp_path: Path) -> None:
    path, damaged = write_video(tmp_path / "v.mp4", 20), tmp_path / "w.mp4"
    damaged.write_text("not a video")
    selections = Selection(), Selection(key_times=(0.7,)), Selection(part=(0.5, 1.0))
    wanted = [*((path, selected) for selected in selections), (str(damaged), Selection())]
    results = dict(decoded_frames(wanted, CONTRACT, FramesConfig(decoder="pyav")))
    assert isinstance(results.pop((str(damaged), Selection())), str)
    for selected in selections:
        frames, info = decode_with("pyav", examine(path), CONTRACT, selected)
        given, about = results[path, selected]
        np.testing.assert_array_equal(given, frames)
        assert about == info
    assert len({about.key for _, about in results.values()}) == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"key_items": {"0": {"x": [[0, 0, 1, 1]]}}}, ["key_frames does not list 0"]),
        (
            {"key_frames": [{"idx": "0", "time": 1}], "key_items": {"0": {"x": [[0, 0, 1, 2], [0, 0, 3, 1]]}}},
            ["2 labelled boxes outside"],
        ),
        ({"spans": [[0, 5.2]], "duration": 5}, ["1 labelled time outside"]),
    ],
)
def test_problems_of_a_sample_are_those_that_the_report_counts(
    tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    report = checked(tmp_path, ROW | changes)
    (sample,) = DatasetFile(tmp_path / "data.jsonl")
    found = problems(sample)
    assert [word in line for word, line in zip(words, found, strict=True)] == [True] * len(words)
    counted = (report.boxes_outside, report.times_outside, report.items_without_frame)
    assert sum(map(bool, counted)) == len(found)
    assert problems(sample, duration=9.0) == [line for line in found if "time outside" not in line]


def test_a_decoder_that_hangs_or_dies_affects_no_other_and_the_next_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "_decode", moody_decoder.decode)
    paths = ["hangs decord pyav", "dies decord pyav", "hangs decord", "dies decord", "good"]
    list(decoded({"good": None}, CONTRACT, workers=1, timeout_s=60, memory_bytes=2**30))  # the first start imports
    started = time.monotonic()
    results = dict(decoded(dict.fromkeys(paths), CONTRACT, workers=2, timeout_s=3.0, memory_bytes=2**30))
    assert results == dict.fromkeys(paths, moody_decoder.INFO) | {
        "hangs decord pyav": "the decoder took more than 3 s",
        "dies decord pyav": "the decoder died",
    }
    assert time.monotonic() - started < 500


def test_a_file_that_exceeds_the_memory_limit_affects_no_other(tmp_path: Path) -> None:
    immense, fine = str(tmp_path / "immense.png"), write_video(tmp_path / "v.mp4", 5)
    Image.new("1", (9000, 9000)).save(immense)  # 243 MB as RGB
    results = dict(decoded({immense: None, fine: None}, CONTRACT, workers=1, timeout_s=60, memory_bytes=100 * 2**20))
    assert results[immense] == "the decoder ran out of memory"
    assert isinstance(results[fine], FrameInfo)


def test_shared_media_are_found_by_content_under_any_name(tmp_path: Path) -> None:
    first, second, third = (write_video(tmp_path / f"{n}.mp4", 5, shade=n) for n in range(3))
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(Path(first).read_bytes())
    both, left_out = shared([first, second], [str(copy), third])
    ((digest, files),) = both.items()
    assert (len(digest), files, left_out) == (64, sorted([first, str(copy)]), [])
    assert shared([first], [third]) == ({}, [])


def test_shared_folders_of_frames_are_found(tmp_path: Path) -> None:
    ours, theirs = (str(write_frames(tmp_path / name, 3, first)) for name, first in (("a", 0), ("b", 1)))
    other = str(write_frames(tmp_path / "c", 4))
    both, left_out = shared([ours, other], [theirs, str(tmp_path)])
    assert list(both.values()) == [[ours, theirs]]
    assert left_out == [str(tmp_path)]


def test_files_that_cannot_be_compared_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = [str(tmp_path / name) for name in ("a.mp4", "b.mp4")]
    for path in empty:
        Path(path).touch()
    video = write_video(tmp_path / "v.mp4", 5)
    both, left_out = shared([empty[0], video], [empty[1], video, "gone.mp4", str(tmp_path)])
    assert [*both.values()] == [[video]]
    assert left_out == sorted([*empty, "gone.mp4", str(tmp_path)])

    def unreadable(path: str) -> None:
        raise UnreadableMedia(path, "Input/output error")

    monkeypatch.setattr(media, "examine", unreadable)
    assert shared([video], [video]) == ({}, [video])
