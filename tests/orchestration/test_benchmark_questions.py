"""The benchmarks that a run evaluates: every one can be asked, and missing videos are counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmark_data import MADE, make
from frame_folders import write_frames

from evidence.errors import BadInput
from evidence.sampling import SamplingContract, selection
from orchestration.benchmark_questions import read_questions, values_of
from orchestration.eval_settings import BenchmarkConfig
from rollout.frames.decoding import decode
from rollout.template import PromptTemplate


def read(config: BenchmarkConfig, **contract: Any) -> Any:
    return read_questions(config, SamplingContract(**contract), PromptTemplate())


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    (tmp_path / "clip.mp4").write_bytes(b"")
    return tmp_path / "clip.mp4"


@pytest.mark.parametrize("name", MADE)
def test_every_benchmark_can_be_asked_and_scored(tmp_path: Path, clip: Path, name: str) -> None:
    path = make(name, tmp_path / "world", clip)
    questions = read(BenchmarkConfig(name, str(path)), key_frames=True)
    assert {Path(sample.media_path).stem for sample in questions.samples} == {"clip_1"}
    lines = {
        ask.id: {"id": ask.id, "text": "<answer>B</answer>", "frame_size": (56, 56), "original_size": (112, 112)}
        | {"frame_times": (0.0, 1.0), "duration": 2.0}
        for ask in questions.asks
    }
    report = questions.report(json.loads(json.dumps(lines)))
    assert set(values_of(report)) == set(values_of(report, "ci95")) == set(questions.metrics) != set()
    assert all(isinstance(value, float) for value in values_of(report).values())


def test_the_folders_of_frames_of_mvbench_are_shown_within_its_bounds(tmp_path: Path) -> None:
    """In the layout of the published files: json/TASK.json and video/tvqa/frames_fps3_hq/CLIP/NUMBER.jpg."""
    write_frames(tmp_path / "video/tvqa/frames_fps3_hq/house_s01_clip_00", 24)
    row = {"video": "house_s01_clip_00", "question": "Who?", "candidates": ["a", "b"], "answer": "a"}
    rows = [row | {"start": 2.1, "end": 4.0}, row]
    data = tmp_path / "json/episodic_reasoning.json"
    data.parent.mkdir()
    data.write_text(json.dumps(rows))
    config = BenchmarkConfig("mvbench", str(tmp_path / "json"), videos=str(tmp_path / "video"))
    part, whole = read(config).samples
    contract = SamplingContract(frames=3, multiple=28)
    frames, info = decode(part.media_path, contract, selection(part, contract))
    assert [round(float(level) / 10) + 1 for level in frames.mean(axis=(1, 2, 3))] == [6, 9, 12]  # numbers of frames
    assert info.times == (1.667, 2.667, 3.667)
    assert decode(whole.media_path, contract, selection(whole, contract))[1].times == (0.0, 4.0, 7.667)


def test_a_question_without_its_video_counts_as_unanswered(
    tmp_path: Path, clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = make("mvbench", tmp_path / "world", clip)
    row = json.loads(path.read_text())[0]
    path.write_text(json.dumps([row, {**row, "video": "gone.mp4"}]))
    questions = read(BenchmarkConfig("mvbench", str(path), set="mv"))
    assert len(questions.asks) == 1
    assert "eval.benchmarks: mv: 1 of 2 questions cannot be asked and count as unanswered, the first is gone.mp4" in (
        caplog.text
    )
    answers = {questions.asks[0].id: {"id": questions.asks[0].id, "text": "<answer>B</answer>"}}
    report = questions.report(answers)
    assert (report["n"], report["acc"], report["counts"]["unanswered"]) == (2, 0.5, 1)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"videos": "/nowhere"}, "none of its 2 questions has its video in /nowhere, the first is clip_1.mp4: "),
        ({"protocol": "loose"}, "protocol = loose: must be one of strict, official"),
    ],
)
def test_faults_are_one_line_that_names_the_set(tmp_path: Path, clip: Path, config: Any, message: str) -> None:
    path = make("mvbench", tmp_path / "world", clip)
    with pytest.raises(BadInput, match=f"^eval.benchmarks: mvbench: {message}"):
        read(BenchmarkConfig("mvbench", str(path), **config))


def test_the_end_of_videos_needs_frames_at_key_times(tmp_path: Path, clip: Path) -> None:
    path = make("videommmu", tmp_path / "world", clip)
    with pytest.raises(BadInput, match=r"only shown with contract.key_frames = true"):
        read(BenchmarkConfig("videommmu", str(path)))
