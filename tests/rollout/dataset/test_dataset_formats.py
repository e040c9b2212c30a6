"""Rows of each format become Samples, and the format of a file is detected."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dataset_rows import EASY_VIDEO_R1, OPEN_O3, ROWS, SER, TIME_R1, TVGBENCH, V_STAR, VIDEO_R1, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evidence.errors import BadInput
from evidence.types import KeyFrame, Sample
from rollout.dataset import read_dataset
from rollout.dataset.formats import FORMATS
from rollout.dataset.read import DatasetFile


def read(folder: Path, rows: list[dict[str, Any]]) -> list[Sample]:
    return read_dataset(write(folder, rows))


def refusal_of(path: Path, **options: Any) -> str:
    with pytest.raises(BadInput) as refusal:
        list(DatasetFile(path, **options))
    message = str(refusal.value)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("name", ROWS)
def test_each_format_is_detected_from_a_single_row(tmp_path: Path, name: str) -> None:
    for row in ROWS[name]:
        assert DatasetFile(write(tmp_path, [row])).format.name == name


def test_the_six_tasks_of_open_o3(tmp_path: Path) -> None:
    visual, spatial, temporal, temporal_mcq, mcq, free = read(tmp_path, OPEN_O3)
    assert visual.image_path == str(tmp_path / "gqa/2354786.jpg")
    assert (visual.video_path, visual.image_size, visual.spans) == (None, (640, 480), ())
    assert visual.reasoning == OPEN_O3[0]["reasoning_process"]
    assert spatial.key_frames == (KeyFrame("48", 2.0), KeyFrame("96", 4.0))
    assert spatial.key_items == {
        "48": {"man": ((0.1, 0.2, 0.3, 0.9),), "door": ((0.4, 0.1, 0.6, 0.9),)},
        "96": {"man": ()},
    }
    assert (temporal.answer, temporal.spans) == ("[12.0, 20.5]", ((12.0, 20.5),))
    assert (temporal_mcq.answer, temporal_mcq.spans) == ("B\n[3, 7.5]", ((3.0, 7.5),))
    assert [(s.id, s.answer, s.spans, s.options) for s in (mcq, free)] == [
        ("4", "A", (), ()),
        ("5", "A ball rolls.", (), ()),
    ]


@pytest.mark.parametrize("answer", ["12 to 20", "[12]", "[1, 2, 3]", '["a", 2]', "null", "[[1, 2]]", "[1, NaN]"])
def test_a_temporal_answer_without_a_span_is_refused(tmp_path: Path, answer: str) -> None:
    message = refusal_of(write(tmp_path, [OPEN_O3[2] | {"answer": answer}]))
    assert "sample 1: the answer of a temporal QA must be" in message


@pytest.mark.parametrize("answer", ["\n[3, 7.5]", " \n[3, 7.5]", "\nB\n[3, 7.5]", "[3, 7.5]"])
def test_a_temporal_choice_without_a_letter_is_refused(tmp_path: Path, answer: str) -> None:
    message = refusal_of(write(tmp_path, [OPEN_O3[3] | {"answer": answer}]))
    assert 'the answer of a temporal QA (MCQ) must be "X\\n[start, end]"' in message


def test_video_r1(tmp_path: Path) -> None:
    video, image = read(tmp_path, VIDEO_R1)
    assert video.video_path == str(tmp_path / "LLaVA-Video-178K/30_60_s/ytb_7nRmsEw7nsE.mp4")
    assert (video.id, video.task, video.answer, video.reasoning) == ("2", "multiple choice", "A", None)
    assert video.asked.splitlines() == [video.question, *VIDEO_R1[0]["options"]]
    assert (image.video_path, image.image_path) == (None, str(tmp_path / "Chart/a.png"))
    assert image.reasoning == "<think>Four, five.</think><answer>5</answer>"
    assert image.asked == image.question


def test_easy_video_r1(tmp_path: Path) -> None:
    grounding, ocr = read(tmp_path, EASY_VIDEO_R1)
    assert grounding.question == "Where is the cat? Find it."
    assert json.loads(grounding.answer)["boxes"] == {"18": [440, 135, 493, 246]}
    assert grounding.spans == ((17.5, 18.5),)
    assert (ocr.id, ocr.question, ocr.answer, ocr.image_path) == ("1", "Read it.", "EXIT", str(tmp_path / "a.png"))


@pytest.mark.parametrize("media", [{"videos": []}, {"videos": ["a.mp4", "b.mp4"]}, {"images": ["a.png"]}])
def test_easy_video_r1_shows_one_video_or_image(tmp_path: Path, media: dict[str, Any]) -> None:
    assert "one video or one image" in refusal_of(write(tmp_path, [EASY_VIDEO_R1[0] | media]))


@pytest.mark.parametrize(
    ("row", "question", "span", "source", "duration"),
    [
        (TIME_R1[0], "A purple hanger demonstrates how to hang a sweater.", (1.0, 4.0), "unknown", 93.2932),
        (TVGBENCH[0], "a person was sitting at a table.", (13.4, 28.1), "charades", 30.12),
    ],
)
def test_time_r1_and_tvgbench_are_temporal_qa(
    tmp_path: Path, row: dict[str, Any], question: str, span: tuple[float, float], source: str, duration: float
) -> None:
    (sample,) = read(tmp_path, [row])
    assert sample.task == "temporal QA"
    assert sample.question == f"When does this happen in the video? {question}"
    assert (sample.answer, sample.spans) == (json.dumps(span), (span,))
    assert (sample.source, sample.duration) == (source, duration)


def old_boxes(row: dict[str, Any]) -> dict[str, Any]:
    """The row in the form of older V-STaR files, where each box is keyed by "timestamp_frameindex"."""
    row = copy.deepcopy(row)
    row["bboxes"] = [{f"{box.pop('timestamp')}_{box.pop('frame_index')}": box} for box in row["bboxes"]]
    return row


def test_v_star(tmp_path: Path) -> None:
    (sample,) = read(tmp_path, V_STAR)
    assert sample.video_path == str(tmp_path / "videos/3783730077.mp4")
    assert sample.duration == pytest.approx(963 / 29.97)
    assert (sample.spans, sample.image_size, sample.domain) == (((0.0, 2.1),), (640, 360), "Entertainment")
    assert sample.key_frames == (KeyFrame("0", 0.0), KeyFrame("30", 1.0))
    assert sample.key_items["30"] == {"guitar": ((221 / 640, 158 / 360, 284 / 640, 197 / 360),)}
    assert sample.follow_ups == {key: text for key, text in V_STAR[0].items() if key.endswith(("_question", "_2"))}
    assert read(tmp_path, [old_boxes(V_STAR[0])]) == [sample]


def test_ser_has_few_required_keys_and_may_hold_all(tmp_path: Path) -> None:
    bare, full = read(tmp_path, SER)
    assert (bare.id, bare.source, bare.media_path) == ("0", "unknown", str(tmp_path / "clips/a.mp4"))
    assert (full.id, full.options, full.spans, full.duration) == (
        "mine-7",
        ("A. a plate", "B. a cup"),
        ((3, 4.5),),
        12.5,
    )
    assert read(tmp_path, [SER[0] | {"follow_ups": {"when": None, "where": "Where?"}}])[0].follow_ups == {
        "where": "Where?"
    }
    message = refusal_of(write(tmp_path, [SER[0], SER[0] | {"option": []}]))
    assert "sample 2: unknown key 'option'; the nearest known one is 'options'" in message


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("ser", {"video": None}, ["'video'", "missing or null"]),
        ("ser", {"spans": [3, 4]}, ["a span", "[start, end]", "3"]),
        ("ser", {"part": [4, 3]}, ["'part'", "start < end", "[4, 3]"]),
        ("ser", {"duration": "long"}, ["'duration'", "a number", "long"]),
        ("ser", {"duration": -1}, ["'duration'", "0 or more", "null", "-1"]),
        ("ser", {"options": [1]}, ["'options'", "a list of texts"]),
        ("ser", {"image": "a.png"}, ["'video' and 'image'", "one of them"]),
        ("ser", {"image_size": [0, 4]}, ["'image_size'", "whole pixels", "[0, 4]"]),
        ("ser", {"image_size": [640.5, 4]}, ["'image_size'", "whole pixels", "640.5"]),
        ("ser", {"follow_ups": {"when": {"then": 1}}}, ["'when'", "a text", "then"]),
        ("easyvideor1", {"problem": "<video> "}, ["'problem'", "<video>"]),
        ("video-r1", {"data_type": "audio"}, ["'data_type'", "video or image", "audio"]),
        ("video-r1", {"problem": None}, ["'problem'", "missing or null"]),
        ("video-r1", {"solution": "<answer> </answer>"}, ["'solution'", "an answer", "<answer>"]),
        ("easyvideor1", {"answer": "<answer></answer>"}, ["'answer'", "an answer", "<answer>"]),
        ("video-r1", {"path": "../x.mp4"}, ["path '../x.mp4'", "leaves the media root"]),
        ("easyvideor1", {"videos": ["/abs/a.mp4"]}, ["videos '/abs/a.mp4'", "leaves the media root"]),
        ("time-r1", {"timestamp": [1]}, ["'timestamp'", "[start, end]"]),
        ("time-r1", {"video": "../x.mp4"}, ["video '../x.mp4'", "leaves the media root"]),
        ("tvgbench", {"answer": "13.4 to 28.1"}, ["'answer'", '"start-end"']),
        ("tvgbench", {"answer": "13.4.1-28.1"}, ["'answer'", "a number", "13.4.1"]),
        ("v-star", {"vid": "../x"}, ["vid '../x.mp4'", "leaves the media root"]),
        ("v-star", {"fps": 0}, ["fps", "above 0"]),
        ("v-star", {"frame_count": 1e300, "fps": 1e-300}, ["frame_count / fps", "a number", "inf"]),
        ("easyvideor1", {"videos": [""]}, ["videos ''", "is the media root"]),
        ("v-star", {"width": None}, ["'width'", "missing or null"]),
        ("v-star", {"bboxes": [{"0.0_0": [1]}]}, ["'0.0_0'", "xmin"]),
        ("v-star", {"bboxes": [{"xmin": 1, "ymin": 2, "xmax": 3}]}, ["'ymax'"]),
        ("v-star", {"bboxes": [3]}, ["a box", "xmin"]),
    ],
)
def test_a_wrong_value_is_refused_and_its_key_named(
    tmp_path: Path, name: str, changes: dict[str, Any], words: list[str]
) -> None:
    row = ROWS[name][0]
    message = refusal_of(write(tmp_path, [row, row | changes]))
    assert all(word in message for word in ["sample 2: ", *words]), message


@pytest.mark.parametrize("key", ["duration", "fps", "image_size"])
def test_nan_in_place_of_a_number_is_null(tmp_path: Path, key: str) -> None:
    null, nan = (list(DatasetFile(write(tmp_path, [ROWS["ser"][0] | {key: v}]), "ser")) for v in (None, float("nan")))
    assert nan == null


@pytest.mark.parametrize("value", [None, float("nan")])
@pytest.mark.parametrize("name", ROWS.keys() - {"time-r1"})  # Time-R1's answer is a required time span
def test_a_row_without_its_answer_is_read_and_written(tmp_path: Path, name: str, value: float | None) -> None:
    key = "solution" if name == "video-r1" else "answer"
    file = DatasetFile(write(tmp_path, [ROWS[name][0] | {key: value}]), name)
    (sample,) = file
    assert sample.answer == ""
    assert key not in file.unread
    if name == "tvgbench":  # what it writes needs the span
        assert sample.spans == ()
        return
    row = FORMATS[name].write(sample, lambda media: str(Path(media).relative_to(tmp_path)))
    assert row.get(key) is None


def test_the_message_for_an_unknown_format_names_the_keys_and_the_known_formats(tmp_path: Path) -> None:
    message = refusal_of(write(tmp_path, [{"text": "x", "clip": "a.mp4", "n\nl": 1, "question": None}]))
    assert "the keys clip, n l, text, which fit no known format" in message
    assert all(name in message for name in FORMATS)
    assert "no keys" in refusal_of(write(tmp_path, [{}]))


def test_an_ambiguous_file_needs_a_format(tmp_path: Path) -> None:
    both = VIDEO_R1[0] | {"question": "What appears?", "answer": "1.0-2.0"}
    path = write(tmp_path, [both])
    assert "fit video-r1 and tvgbench; name the format" in refusal_of(path)
    assert [s.task for s in DatasetFile(path, "video-r1")] == ["multiple choice"]
    assert [s.task for s in DatasetFile(path, "tvgbench")] == ["temporal QA"]
    assert "format = openo3: must be one of ser, open-o3" in refusal_of(path, format="openo3")


def test_media_must_be_below_the_media_root_which_may_be_another_folder(tmp_path: Path) -> None:
    (tmp_path / "json").mkdir()
    path = write(tmp_path / "json", SER)
    assert next(iter(DatasetFile(path, media_root=tmp_path))).media_path == str(tmp_path / "clips/a.mp4")
    inside = write(tmp_path / "json", [SER[0] | {"video": str(tmp_path / "a.mp4")}])
    assert next(iter(DatasetFile(inside, media_root=tmp_path))).media_path == str(tmp_path / "a.mp4")
    assert "leaves the media root" in refusal_of(inside)


def test_lines_are_read_lazily(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join([json.dumps(SER[0])] * 30 + ["{oops"]))
    samples = iter(DatasetFile(path))
    assert [next(samples).id for _ in range(30)] == [str(n) for n in range(30)]
    with pytest.raises(BadInput, match="line 31: not JSON"):
        next(samples)


def test_the_examples_in_the_docs_are_of_the_stated_formats(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs/data.md").read_text()
    blocks = re.findall(r"^(### .*?)$|```json\n(.*?)```", text, re.MULTILINE | re.DOTALL)
    seen, names = set(), ["ser"]
    for heading, block in blocks:
        names = re.findall(r"`([a-z0-9-]+)` \(", heading) or names
        if block:
            file = DatasetFile(write(tmp_path, [json.loads(block)]))
            assert len(list(file)) == 1
            assert file.format.name in names
            seen.add(file.format.name)
    assert seen == set(FORMATS)


texts = st.text(min_size=1, max_size=8).filter(str.strip)
numbers = st.floats(allow_nan=False, allow_infinity=False)
boxes = st.tuples(numbers, numbers, numbers, numbers)
samples = st.builds(
    Sample,
    id=texts,
    source=texts,
    task=texts,
    question=texts,
    answer=texts,
    image_size=st.none() | st.tuples(st.integers(1, 9999), st.integers(1, 9999)),
    key_frames=st.lists(st.builds(KeyFrame, texts, numbers), max_size=2).map(tuple),
    key_items=st.dictionaries(
        st.text(max_size=3), st.dictionaries(st.text(max_size=3), st.lists(boxes, max_size=2).map(tuple), max_size=2)
    ),
    reasoning=st.none() | texts,
    options=st.lists(st.text(max_size=4), max_size=3).map(tuple),
    spans=st.lists(st.tuples(numbers, numbers), max_size=2).map(tuple),
    duration=st.none() | numbers.map(abs),
    fps=st.none() | numbers.map(abs),
    domain=st.none() | texts,
    follow_ups=st.dictionaries(texts, texts, max_size=2),
    part=st.none() | st.tuples(st.floats(0, 50), st.floats(51, 99)),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(samples, min_size=1, max_size=3), st.booleans())
def test_ser_can_hold_every_sample(tmp_path: Path, drawn: list[Sample], as_lines: bool) -> None:
    kinds = ["video_path", "image_path"] * 2
    written = [replace(s, **{kind: str(tmp_path / "a b.mp4")}) for s, kind in zip(drawn, kinds)]
    rows = [FORMATS["ser"].write(s, lambda media: Path(media).name) for s in written]
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) if as_lines else json.dumps(rows))
    assert read_dataset(path, "ser") == written


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [p for key in keys for p in [(*path, key), *places(value[key], (*path, key))]]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([(n, i, p) for n in ROWS for i, row in enumerate(ROWS[n]) for p in places(row)]), json_values)
def test_any_value_anywhere_gives_a_sample_or_a_one_line_message(
    tmp_path: Path, where: tuple[Any, ...], value: Any
) -> None:
    name, index, place = where
    row: Any = copy.deepcopy(ROWS[name][index])
    holder = row
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    path = write(tmp_path, [row])
    try:
        read_samples = len(list(DatasetFile(path, name)))
    except BadInput as error:
        read_samples = len(str(error).splitlines())
    assert read_samples == 1


@pytest.mark.parametrize(("task", "shown"), [("visual QA", "b.png"), ("General video QA MCQ", "a.mp4")])
def test_the_task_of_an_open_o3_row_chooses_between_its_video_and_image(tmp_path: Path, task: str, shown: str) -> None:
    row = {"id": "1", "task": task, "question": "What?", "answer": "A", "video_path": "a.mp4", "image_path": "b.png"}
    (sample,) = read_dataset(write(tmp_path, [row]), "open-o3")
    assert Path(sample.media_path).name == shown
    assert (sample.video_path is None) == (shown == "b.png")
