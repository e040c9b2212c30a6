"""A run's own files and config.yaml are input of `ser score` and `ser calibrate`."""

from __future__ import annotations

import asyncio
import json
import warnings
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from evaluation.heldout import ClipRecord
from evidence.errors import BadInput
from evidence.lines import AppendedLines
from evidence.spaces import Written
from evidence.types import FrameInfo, Group, Prompt, Sample, ScoredGroup, Trajectory
from orchestration import cli
from orchestration.commands.ask_many import with_progress
from orchestration.commands.calibrate import CalibrateConfig
from orchestration.commands.run_files import is_run_config, judging_config, policy_config, run_for_calibration, written
from orchestration.config import load_config, to_yaml
from orchestration.reporting.heldout_records import write_records
from orchestration.reporting.samples import write_samples
from orchestration.settings import TrainConfig
from orchestration.supervision.standalone_policy import check_policy
from orchestration.supervision.standalone_referee import end_tasks
from referee.reward.recorded import read_completions

ROOT = Path(__file__).parents[3]
INFO = FrameInfo("key", (0.0, 4.0 / 3), (100, 50), (200, 100), 2.0)
SAMPLE = Sample("clip-1", "s", "temporal-spatial free-form QA", "Where?", "left", video_path="a.mp4")
TEXT = "<think><obj>cup</obj><box>[10,10,50,40]</box>at<t>0.0</t>s</think><answer>left</answer>"


def scored_group(number: int) -> ScoredGroup:
    trajectory = Trajectory(np.zeros(1, np.int32), np.zeros(1, np.float32), ((0, 0, 1),), TEXT, "stop")
    nothing = np.zeros(0, np.int32)
    prompt = Prompt(nothing, nothing, np.zeros((3, 0), np.int32), np.zeros((0, 3), np.int32))
    group = Group(number, SAMPLE, INFO, prompt, (trajectory, trajectory), 0)
    rewards = np.zeros(2, np.float32)
    return ScoredGroup(group, rewards, {}, {}, {}, ((), ()))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with samples of two steps and held-out records."""
    samples = AppendedLines(tmp_path / "samples.jsonl")
    write_samples(samples, 1, scored_group(0))
    write_samples(samples, 2, scored_group(8))
    record = ClipRecord("clip-1", TEXT, 0.5, 1.0, 0.0, 1, 1, 0.2, (0.0,), INFO.size, INFO.times)
    write_records(tmp_path / "heldout_after_greedy.jsonl", [record])
    overrides = [f"run_dir={tmp_path}", "template.box_space=thousand", "seed=7", "contract.multiple=28"]
    config = load_config(TrainConfig, ROOT / "configs/experiment/quickstart.yaml", overrides)
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    row = {"id": "clip-1", "task": SAMPLE.task, "question": "Where?", "answer": "left", "video_path": "a.mp4"}
    (tmp_path / "data.json").write_text(json.dumps([row | {"source": "s"}]))
    return tmp_path


def test_samples_and_held_out_records_are_completions(run: Path) -> None:
    samples = read_completions(run / "samples.jsonl")
    assert [(line.id, line.text, line.frame_size, line.group) for line in samples] == [
        ("clip-1", TEXT, INFO.size, number) for number in (0, 0, 8, 8)
    ]
    assert samples[0].frame_times == pytest.approx(INFO.times, abs=1e-4)
    (heldout,) = read_completions(run / "heldout_after_greedy.jsonl")
    assert (heldout.id, heldout.text, heldout.frame_size, heldout.frame_times) == (
        "clip-1",
        TEXT,
        INFO.size,
        INFO.times,
    )


@pytest.mark.parametrize(("file", "lines"), [("samples.jsonl", 4), ("heldout_after_greedy.jsonl", 1)])
def test_a_runs_files_are_scored(run: Path, capsys: pytest.CaptureFixture[str], file: str, lines: int) -> None:
    argv = ["--samples", str(run / "data.json"), "--completions", str(run / file), "--config", str(run / "config.yaml")]
    assert cli.main(["score", "--reward", "open_o3", *argv]) == 0
    scored = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(scored) == lines
    assert scored[0]["claims"][0]["box"] == [1.0, 0.5, 5.0, 2.0]  # written in thousandths of the frame


def test_each_group_of_a_run_is_a_group(run: Path) -> None:
    from orchestration.commands.score import group_views

    views = group_views({"clip-1": SAMPLE}, read_completions(run / "samples.jsonl"), 1.0, Written())
    assert [len(view.texts) for view in views.values()] == [2, 2]


def test_a_runs_config_is_the_config_of_its_referee(run: Path) -> None:
    path = run / "config.yaml"
    assert is_run_config(path)
    train = load_config(TrainConfig, path)
    judging = judging_config(path, ["model.referee=other"])
    assert judging.model.referee.model == "other"
    assert (judging.contract, judging.verification, judging.cluster) == (
        train.contract,
        train.verification,
        train.cluster,
    )
    assert asdict(judging.engine) == {
        "dtype": "float32",
        "max_model_len": 512,
        "max_num_seqs": 64,
        "max_num_batched_tokens": 8192,
    }
    calibrate = load_config(CalibrateConfig, run_for_calibration(path), ["out=x", "samples=9"])
    assert (calibrate.data, calibrate.model.referee) == (train.data.heldout, train.model.referee[0])
    assert (calibrate.template.box_space, calibrate.seed, calibrate.samples) == ("thousand", 7, 9)


def test_a_runs_config_is_the_config_of_its_policy(run: Path) -> None:
    config = policy_config(run / "config.yaml", ["model=other", "temperature=0.5"])
    trained = load_config(TrainConfig, run / "config.yaml")
    assert (config.model, config.temperature, config.max_tokens) == ("other", 0.5, trained.sampling.max_tokens)
    assert (config.contract, config.template) == (trained.contract, trained.template)
    assert config.engine.max_model_len == trained.sampling.max_model_len


def test_the_config_of_a_7b_policy_holds_its_prompts(tiny_model: Path) -> None:
    longest = "contract.frames=768", "contract.total_pixels=16056320", "engine.max_model_len=40960", "max_tokens=2048"
    for overrides in ((), longest):  # as in docs/evaluation.md
        config = policy_config(ROOT / "configs/eval/gpu_7b.yaml", [f"model={tiny_model}", *overrides])
        check_policy(config)


def test_a_calibrations_own_config_is_none_of_a_run() -> None:
    assert not is_run_config(ROOT / "configs/calibrate/shapes.yaml")


def test_no_task_outlives_the_referee() -> None:
    """A task that is cancelled later, after Ray's shutdown, would make Ray join another cluster."""
    ended = []

    async def decode() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    async def judge() -> None:
        task = asyncio.create_task(decode())
        await asyncio.sleep(0)
        await end_tasks()
        assert task.done()
        assert ended == [True]

    asyncio.run(judge())


def test_the_first_failure_ends_all_and_is_the_only_one(capfd: pytest.CaptureFixture[str]) -> None:
    async def fail(number: int) -> None:
        await asyncio.sleep(0)
        raise BadInput(f"sample {number}: other frames")

    with warnings.catch_warnings(record=True) as caught, pytest.raises(BadInput, match="sample 0"):
        asyncio.run(with_progress("judging", [fail(number) for number in range(173)]))
    assert (caught, capfd.readouterr().err) == ([], "")


def test_the_times_that_a_native_video_prints_need_the_policy(tiny_qwen3: Path) -> None:
    native = ["model.referee=r", "template.native_video=true"]
    with pytest.raises(BadInput, match=r"^model.policy: must be set with template.native_video"):
        written(judging_config(None, native))
    policy = written(judging_config(None, [*native, f"model.policy={tiny_qwen3}"]))
    info = FrameInfo("k", (0.0, 5.0, 9.967), (56, 56), (56, 56), 9.983)
    assert policy.printed(info)[10.0] == 9.967, "Qwen3-VL prints each step's time with one decimal"
