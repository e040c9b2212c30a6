"""Reading a dataset file gives samples, or a one-line message that says what to fix."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from frame_folders import write_frames
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from evidence.errors import BadInput
from evidence.sampling import SamplingContract
from rollout.dataset import read_dataset
from rollout.dataset.read import OTHER_KINDS
from rollout.frames.decoding import decode

ROW = {"id": "a", "task": "t", "question": "What?", "answer": "It.", "video_path": "v.mp4"}
LABELLED: dict[str, Any] = ROW | {
    "source": "shapes",
    "image_path": None,
    "image_size": [640, 360],
    "key_frames": [{"idx": "4", "time": 1.0, "path": None}],
    "key_items": {"4": {"red ball": [[0.1, 0.2, 0.3, 0.4]]}},
    "reasoning_process": "<think>I see</think>",
}


def write(folder: Path, text: str) -> Path:
    file = folder / "data.json"
    file.write_text(text)
    return file


def test_lists_and_lines_give_the_same_samples_and_null_means_absent(tmp_path: Path) -> None:
    rows = [ROW | {"key_frames": None, "key_items": None, "image_path": None, "source": None}, ROW | {"id": "b"}]
    as_list = read_dataset(write(tmp_path, json.dumps(rows)))
    as_lines = read_dataset(write(tmp_path, "\n".join(map(json.dumps, rows)) + "\n\n"))
    assert as_list == as_lines
    assert as_list[0].key_frames == ()
    assert as_list[0].media_path == str(tmp_path / "v.mp4")


def without(key: str) -> dict[str, Any]:
    return {k: v for k, v in ROW.items() if k != key}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["empty"]),
        ("[]", ["empty"]),
        ('{"id": 1}\n{oops', ["line 2", "not JSON"]),
        (json.dumps(ROW) + "\n[1]", ["line 2", "JSON object"]),
        (json.dumps([ROW, without("question")]), ["sample 2", "question"]),
        (json.dumps([ROW | {"question": " "}]), ["sample 1", "question", "not empty"]),
        (json.dumps([ROW, without("video_path")]), ["sample 2", "video_path"]),
        (json.dumps([ROW | {"video_path": "../../etc/passwd"}]), ["leaves the media root", "name another"]),
        (json.dumps([ROW | {"key_items": {"0": {"x": [[1, 2, 3]]}}}]), ["four numbers"]),
    ],
)
def test_bad_datasets_are_refused_in_one_line(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(BadInput) as refusal:
        read_dataset(write(tmp_path, text))
    message = str(refusal.value)
    assert "\n" not in message
    for word in ["data.json", *words]:
        assert word in message


def test_the_message_for_a_missing_file_names_the_others_in_its_folder(tmp_path: Path) -> None:
    write(tmp_path, "[]")
    with pytest.raises(BadInput, match=r"no such dataset file; in that folder: data\.json"):
        read_dataset(tmp_path / "date.json")


def refusal_of(path: Path) -> str:
    with pytest.raises(BadInput) as refusal:
        read_dataset(path)
    message = str(refusal.value)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("before", ["", "\ufeff", "\n "])
def test_labels_are_read_in_every_layout(tmp_path: Path, before: str) -> None:
    for text in (json.dumps([LABELLED], indent=1), json.dumps(LABELLED) + "\r\n"):
        (sample,) = read_dataset(write(tmp_path, before + text))
        assert sample.image_size == (640, 360)
        assert [(frame.idx, frame.time) for frame in sample.key_frames] == [("4", 1.0)]
        assert sample.key_items == {"4": {"red ball": ((0.1, 0.2, 0.3, 0.4),)}}
        assert sample.reasoning == "<think>I see</think>"


def test_lines_end_only_at_newlines(tmp_path: Path) -> None:
    row = ROW | {"question": "one\u2028two\x85three"}
    assert read_dataset(write(tmp_path, json.dumps(row, ensure_ascii=False)))[0].question == row["question"]


@pytest.mark.parametrize("key", LABELLED.keys() - ROW.keys())
def test_null_means_absent(tmp_path: Path, key: str) -> None:
    absent = {k: v for k, v in LABELLED.items() if k != key}
    null, without_it = read_dataset(write(tmp_path, json.dumps([LABELLED | {key: None}, absent])))
    assert null == without_it


def test_null_within_the_labels_means_absent(tmp_path: Path) -> None:
    row = ROW | {"key_items": {"4": None, "8": {"red ball": None}}}
    assert read_dataset(write(tmp_path, json.dumps([row])))[0].key_items == {"4": {}, "8": {"red ball": ()}}


def test_line_numbers_of_invalid_json_are_those_of_the_file(tmp_path: Path) -> None:
    assert ": line 3: not JSON" in refusal_of(write(tmp_path, f"{json.dumps(ROW)}\n\n{{'id': 1}}\n"))
    assert ": line 4: not JSON" in refusal_of(write(tmp_path, '[\n{"id": 1},\n{"id": 2},\n{"id" 3}\n]'))


def test_json_beyond_the_parsers_limits_is_refused(tmp_path: Path) -> None:
    too_deep, too_long = '{"a":' * 100_000, '{"id": ' + "1" * 5000 + "}"
    assert ": line 2: " in refusal_of(write(tmp_path, f"{json.dumps(ROW)}\n{too_deep}"))
    assert ": line 1: " in refusal_of(write(tmp_path, too_long))


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_bytes(b'[{"id": "\xff"}]')
    assert "not UTF-8" in refusal_of(path)


def test_the_message_for_a_missing_file_in_an_empty_folder(tmp_path: Path) -> None:
    assert "`ser data make-shapes` makes one" in refusal_of(tmp_path / "train.json")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"question": ["a"]}, ["'question'", "a text"]),
        ({"answer": []}, ["'answer'", "a text"]),
        ({"answer": float("inf")}, ["'answer'", "a text", "inf"]),
        ({"question": float("nan")}, ["'question'", "missing or null"]),
        ({"task": float("nan")}, ["'task'", "missing or null"]),
        ({"video_path": float("nan")}, ["'video_path'", "missing or null"]),
        ({"video_path": 5}, ["'video_path'", "a path"]),
        ({"video_path": "../a\nb"}, ["leaves the media root", "name another"]),
        ({"image_size": [640]}, ["'image_size'", "[width, height]"]),
        ({"key_frames": {"idx": 1}}, ["'key_frames'", "a list"]),
        ({"key_frames": [3]}, ["a key frame", "idx and time"]),
        ({"key_frames": [{"idx": None, "time": 1}]}, ["'idx'"]),
        ({"key_frames": [{"idx": 1, "time": "soon"}]}, ["'time'", "soon"]),
        ({"key_frames": [{"idx": 1, "time": float("nan")}]}, ["'time'", "missing or null"]),
        ({"video_path": "/etc/passwd"}, ["'/etc/passwd'", "leaves the media root"]),
        ({"key_items": [1]}, ["'key_items'", "an object"]),
        ({"key_items": {"4": [1]}}, ["'4'", "an object"]),
        ({"key_items": {"4": {"ball": 1}}}, ["'ball'", "a list"]),
        ({"reasoning_process": 5}, ["'reasoning_process'", "a text"]),
        ({"question": "a\ud800"}, ["'question'", r"'\ud800'", "half a character"]),
        ({"video_path": "\udc80.mp4"}, ["'video_path'", r"'\udc80'", "half a character"]),
        ({"key_items": {"4": {"\ud800": []}}}, ["'key_items'", r"'\ud800'", "half a character"]),
        ({"video_path": "."}, ["video_path '.'", "is the media root", "name a file"]),
        ({"video_path": ""}, ["'video_path'", "missing or null"]),
    ],
)
def test_a_wrong_value_is_refused_and_its_key_named(tmp_path: Path, changes: dict[str, Any], words: list[str]) -> None:
    message = refusal_of(write(tmp_path, json.dumps([LABELLED, LABELLED | changes])))
    assert all(word in message for word in [": sample 2: ", *words]), message


def test_links_out_of_the_folder_are_followed_unless_they_are_forbidden(tmp_path: Path) -> None:
    blobs, data = tmp_path / "blobs", tmp_path / "snapshots/abc"
    (data / "clips").mkdir(parents=True)
    blobs.mkdir()
    write(blobs, json.dumps([ROW | {"video_path": "clips/a.mp4"}])).rename(blobs / "1")
    Image.new("RGB", (4, 2)).save(blobs / "2", "PNG")
    (data / "data.json").symlink_to("../../blobs/1")
    for name in ("a.mp4", "b.png"):
        (data / "clips" / name).symlink_to("../../../blobs/2")
    (data / "videos").symlink_to(blobs)
    (sample,) = read_dataset(data / "data.json")
    assert sample.media_path == str(data / "clips/a.mp4")
    # The link's own name says that it is an image; the file that it leads to has no suffix.
    assert decode(str(data / "clips/b.png"), SamplingContract(multiple=2))[1].times == (0.0,)
    for path in ("clips/a.mp4", "videos/2", str(data / "clips/a.mp4")):
        file = data / "data.jsonl"
        file.write_text(json.dumps(ROW | {"video_path": path}), encoding="utf-8")
        assert read_dataset(file)[0].media_path == str(data / path)
        with pytest.raises(BadInput, match=r"is or holds a link that leaves the media root .* links are forbidden"):
            read_dataset(file, follow_links=False)
    file.write_text(json.dumps(ROW | {"video_path": "data.jsonl"}), encoding="utf-8")
    assert read_dataset(file, follow_links=False)[0].media_path == str(file)


def test_links_among_the_frames_of_a_folder_are_links_too(tmp_path: Path) -> None:
    data, blob = tmp_path / "data", tmp_path / "blob"
    folder = write_frames(data / "clips/a", 3)
    (folder / "00003.jpg").rename(blob)
    file = write(data, json.dumps([ROW | {"video_path": "clips/a"}]))
    (folder / "00003.jpg").symlink_to("00002.jpg")
    assert read_dataset(file, follow_links=False)[0].media_path == str(folder)
    (folder / "00003.jpg").unlink()
    (folder / "00003.jpg").symlink_to(blob)
    assert read_dataset(file)[0].media_path == str(folder)
    with pytest.raises(BadInput, match=r"'clips/a' is or holds a link that leaves the media root"):
        read_dataset(file, follow_links=False)


@pytest.mark.parametrize("path", ["../blobs/2", "clips/../../blobs/2", "videos/../../blobs/2", "{tmp}/blobs/2"])
def test_a_path_that_is_written_to_leave_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs/2").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/videos").symlink_to(tmp_path / "blobs")
    file = write(tmp_path / "data", json.dumps([ROW | {"video_path": path.format(tmp=tmp_path)}]))
    assert "leaves the media root" in refusal_of(file)


def test_an_absolute_path_may_lead_to_the_root_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    file = write(tmp_path / "data", json.dumps([ROW | {"video_path": str(tmp_path / "link/v.mp4")}]))
    assert read_dataset(file)[0].media_path == str(tmp_path / "data/v.mp4")


@pytest.mark.parametrize("answer", ["NaN", "null", None])
def test_a_missing_answer_is_empty_and_not_the_word_nan(tmp_path: Path, answer: str | None) -> None:
    row = json.dumps(without("answer"))
    (sample,) = read_dataset(write(tmp_path, row if answer is None else f'{row[:-1]}, "answer": {answer}}}'))
    assert sample.answer == ""


@pytest.mark.parametrize("key", LABELLED.keys() - ROW.keys())
def test_nan_in_place_of_a_text_a_list_or_an_object_is_null(tmp_path: Path, key: str) -> None:
    null, nan = read_dataset(write(tmp_path, json.dumps([LABELLED | {key: None}, LABELLED | {key: float("nan")}])))
    assert nan == null


@pytest.mark.parametrize("text", [json.dumps([ROW]), json.dumps(ROW) + "\n"])
@pytest.mark.parametrize("name", ["data.json.gz", "data.jsonl.gz", "data.json"])
def test_a_file_compressed_by_gzip_is_read(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(text.encode()))
    assert read_dataset(tmp_path / name) == read_dataset(write(tmp_path, text))


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: data[:20] + b"x" * (len(data) - 20)])
@pytest.mark.parametrize("text", [json.dumps([ROW] * 30), json.dumps(ROW) * 30])
def test_damaged_gzip_data_are_refused(tmp_path: Path, text: str, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "data.json.gz"
    path.write_bytes(damage(gzip.compress(text.encode())))
    assert "its gzip data are damaged or cut short" in refusal_of(path)


@pytest.mark.parametrize(("start", "kind"), OTHER_KINDS.items())
def test_files_of_other_kinds_are_named_as_what_they_are(tmp_path: Path, start: bytes, kind: str) -> None:
    path = tmp_path / "data.parquet"
    path.write_bytes(start + b"\x15\x04\n[")
    assert f": is {kind}; write it as JSON, one object per line" in refusal_of(path)


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    path = write(tmp_path, json.dumps([ROW | {"video_path": "loop/v.mp4"}]))
    message = refusal_of(path)
    assert "sample 1: the video_path " in message
    assert "cannot be followed" in message
    with pytest.raises(BadInput, match=r"data\.json: the media root .*loop' cannot be followed"):
        read_dataset(path, media_root=tmp_path / "loop")


def test_an_unreadable_file_is_refused() -> None:
    # A regular file that not even root, who ignores permission bits, can read from its beginning.
    message = refusal_of(Path("/proc/self/mem"))
    assert "/proc/self/mem: cannot be read (Input/output error); name a readable file" in message


def test_a_name_that_is_too_long_counts_as_missing(tmp_path: Path) -> None:
    assert "no such dataset file" in refusal_of(tmp_path / f"{'x' * 300}.json")
    assert "no such dataset file" in refusal_of(tmp_path / ("x" * 300) / "a.json")


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [p for key in keys for p in [(*path, key), *places(value[key], (*path, key))]]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["idx", "time", "4"]), inner),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(places(LABELLED)), json_values)
def test_any_value_anywhere_gives_a_sample_or_a_one_line_message(
    tmp_path: Path, place: tuple[Any, ...], value: Any
) -> None:
    row: Any = copy.deepcopy(LABELLED)
    holder = row
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    path = write(tmp_path, json.dumps([row]))
    try:
        read = len(read_dataset(path))
    except BadInput as error:
        read = len(str(error).splitlines())
    assert read == 1
