"""What is asked in a run, which answers a judge is asked about, and what the report makes of missing completions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evaluation.exams import END, VSTAR_TASKS, exam_of, require_options
from evaluation.faults import Faults
from evaluation.reading import PlacedRow
from evaluation.registry import named
from evidence.errors import BadInput
from evidence.sampling import SamplingContract, frame_indices, selection
from evidence.spaces import Written

VSTAR = {
    "vid": "v",
    "fps": 4,
    "width": 112,
    "height": 112,
    "frame_count": 40,
    "question": "What is it?",
    "answer": "a guitar",
    "temporal_question": "When?",
    "timestamps": [2, 6],
    "spatial_question": "Where then?",
    "spatial_question_2": "Where?",
    "bboxes": [{"timestamp": 3, "frame_index": 12, "xmin": 0, "ymin": 0, "xmax": 56, "ymax": 56}],
}
CAPTIONING = {
    "video_id": "1",
    "dim": "speed",
    "question": "Describe it.",
    "mc_question": "How?",
    "mc_answer": "B. slow",
}
YES_NO = {"video_id": "1", "dim": "speed", "question": "Is it slow?", "answer": "yes"}
LABELLED = {
    "id": "x",
    "source": "made",
    "task": "temporal-spatial free-form QA",
    "question": "Where is the cup at 1.0 s?",
    "answer": "left",
    "video_path": "a.mp4",
    "key_frames": [{"idx": 1, "time": 1.0}],
    "key_items": {"1": {"cup": [[0.0, 0.0, 0.5, 0.5]]}},
}
CONTRACT = SamplingContract()
FRAMES = {"frame_size": [56, 56], "original_size": [112, 112], "frame_times": [0.0, 1.0], "duration": 2.0}


def exam(name: str, rows: list[Any], limit: int | None = None, faults: Faults | None = None) -> Any:
    placed = [PlacedRow(Path("test.json"), n, row) for n, row in enumerate(rows)]
    return exam_of(named(name), placed, limit, Written(), faults or Faults())


def recorded(**texts: str) -> dict[str, dict[str, Any]]:
    return {name: {"id": name, "text": text, **FRAMES} for name, text in texts.items()}


def test_vstars_chains_become_a_result_file_in_the_official_shape() -> None:
    answers = {"what": "A guitar.", "when": "2.0 s - 6.0 s", "where": '{"3": [0, 0, 28, 28]}'}
    answers |= {"where_2": '{"3": [0, 0, 56, 56]}', "when_2": "<answer>2 and 4</answer>"}
    vstar = exam("vstar", [VSTAR])
    assert [ask.id for ask in vstar.asks] == [f"0/{name}" for name in VSTAR_TASKS]
    lines = recorded(**{f"0/{name}": text for name, text in answers.items()})
    (result,) = vstar.results(lines)
    assert (result["answer_temporal"], result["answer_temporal_2"], result["input_shape"]) == ([2, 6], [2, 4], [56, 56])
    report = vstar.report(lines, {"boxes": "converted"}, {}, Faults())
    assert (report["acc"], report["chain1"]["m_tiou"], report["chain2"]["m_tiou"]) == (1, 1, 0.5)
    assert (report["chain1"]["m_viou"], report["chain2"]["m_viou"]) == (1, 0.25)


def test_a_sample_of_vstar_without_completions_is_unanswered() -> None:
    report = exam("vstar", [VSTAR, VSTAR | {"vid": "w"}]).report(recorded(**{"1/what": "a guitar"}), {}, {}, Faults())
    assert (report["counts"]["answered"], report["counts"]["unanswered"], report["acc"]) == (1, 1, 0.5)


def test_vstars_judge_is_asked_about_answers_only_and_a_missing_reply_is_a_failure() -> None:
    vstar = exam("vstar", [VSTAR, VSTAR | {"vid": "w"}])
    lines = recorded(**{"0/what": "some guitar"})
    (prompt,) = vstar.prompts(lines, {})
    assert "True answer: a guitar\nCandidate answer: some guitar" in prompt
    report = vstar.report(lines, {"judge": "judge-7b"}, {prompt: "2"}, Faults())
    assert (report["acc"], report["judge"], report["counts"]["judge_failures"]) == (0.5, "judge-7b", 0)
    report = vstar.report(lines, {"judge": "judge-7b"}, {}, Faults())
    assert (report["acc"], report["counts"]["judge_failures"]) == (0, 1)


def test_a_judge_is_asked_where_no_rule_reads_the_answer() -> None:
    tempcompass = exam("tempcompass", [CAPTIONING, YES_NO])
    lines = recorded(**{"captioning/0": "A slow car.", "yes_no/1": "It is slow."})
    strict, official = (tempcompass.prompts(lines, {"protocol": name}) for name in ("strict", "official"))
    assert (len(strict), len(official)) == (1, 2)
    assert "Description: A slow car." in strict[0]
    replies = {strict[0]: "Reasoning: …\nAnswer: B. slow", official[1]: "Correct"}
    report = tempcompass.report(lines, {"protocol": "official"}, replies, Faults())
    assert (report["acc"], report["counts"]["judged"]) == (1, 2)


def test_the_limit_is_the_number_of_questions_and_of_vstars_samples() -> None:
    assert exam("tempcompass", [CAPTIONING, YES_NO], limit=1).report({}, {}, {}, Faults())["n"] == 1
    assert len(exam("vstar", [VSTAR, VSTAR], limit=1).asks) == 5


def test_a_question_about_a_part_of_a_video_shows_that_part() -> None:
    row = {"video": "a.mp4", "question": "?", "candidates": ["a", "b"], "answer": "a"}
    whole, part = exam("mvbench", [row, row | {"start": 27.0, "end": 34.5}]).asks
    assert (whole.sample.part, part.sample.part) == (None, (27.0, 34.5))


def official_bounds(start: float, end: float, frames: int) -> tuple[int, int]:
    """The first and the last number that MVBench's `get_index` chooses from, for `read_frame` (fps 3, first_idx 1)."""
    return max(1, round(start * 3)), min(round(end * 3), frames)


@pytest.mark.parametrize("task", ["episodic_reasoning", "Episodic Reasoning"])
@given(start=st.floats(0, 90), length=st.floats(0.01, 90))
@example(start=0.0, length=0.1)
@example(start=0.5, length=0.34)
def test_frames_in_folders_have_the_bounds_of_mvbenchs_script(task: str, start: float, length: float) -> None:
    frames, end = 200, start + length
    row = {"video": "a", "question": "?", "candidates": ["a", "b"], "answer": "a", "task_type": task}
    (ask,) = exam("mvbench", [row | {"start": start, "end": end}]).asks
    assert ask.sample.fps == 3.0
    assert 0 <= ask.sample.part[0] <= ask.sample.part[1]
    shown = 1 + frame_indices(np.arange(frames) / 3.0, SamplingContract(frames=500), selection(ask.sample, CONTRACT))
    first, last = official_bounds(start, end, frames)
    if first <= last:
        assert (shown[0], shown[-1]) == (first, last)
    else:  # the script asks for frames that the folder does not hold
        assert shown.tolist() == [min(first, frames)]


def test_other_videos_of_mvbench_are_no_folders() -> None:
    row = {"video": "a.mp4", "question": "?", "candidates": ["a", "b"], "answer": "a", "task_type": "action_sequence"}
    sample = exam("mvbench", [row | {"start": 1.1, "end": 2.2}]).asks[0].sample
    assert (sample.fps, sample.part) == (None, (1.1, 2.2))


def test_videommmu_shows_the_last_frame_where_the_picture_is() -> None:
    row = {"id": "test_Art_1", "track": "Adaptation", "question": "?", "question_type": "open", "answer": "2"}
    videommmu = exam("videommmu", [row])
    assert videommmu.shows_end
    assert videommmu.asks[0].sample.key_frames == (END,)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("vstar", {"protocol": "strict"}, "--protocol: does not apply; it takes --mode, --boxes"),
        ("vstar", {"mode": "lax"}, "--mode = lax: must be one of official"),
        ("data", {"protocol": "stict"}, "--protocol = stict"),
        ("data", {"judge": "http://host/v1"}, "--judge: does not apply"),
    ],
)
def test_options_of_scoring_are_checked_before_anything_is_asked(name: str, options: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words.replace("(", r"\(")):
        require_options(exam(name, [VSTAR if name == "vstar" else LABELLED]), options)


def test_a_dataset_has_accuracy_by_task_and_the_iou_of_labelled_boxes() -> None:
    data = exam("data", [LABELLED, LABELLED | {"task": "temporal QA", "answer": "[0.0, 2.0]", "key_items": {}}])
    claim = "<think><obj>cup</obj><box>[0,0,28,14]</box>at<t>1.0</t>s</think>"
    lines = recorded(**{"0/x": f"{claim}<answer>left</answer>", "1/x": "<answer>From 0 s to 1 s</answer>"})
    report = data.report(lines, {}, {}, Faults())
    assert (report["box_iou"], report["tiou"]) == (0.5, 0.5)
    assert report["by_task"]["temporal-spatial free-form QA"]["acc"] == pytest.approx(2 / 3)  # ROUGE
    assert report["exact"] == 1
    assert report["by_task"]["temporal QA"]["acc"] == 0.5
