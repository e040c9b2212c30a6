"""The report of a step: the rate shown, and the warning about a run that learns nothing."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from evidence.errors import BadInput
from evidence.types import FrameInfo, Group, Prompt, Sample, ScoredGroup, Trajectory
from orchestration.config import load_config
from orchestration.loop.admission import Batch
from orchestration.loop.ledger import Ledger
from orchestration.reporting.learning import WATCHED_STEPS
from orchestration.reporting.steps import StepReport, StepTimes
from orchestration.settings import TrainConfig

EMPTY = np.zeros(0, np.int32)


def ready_group() -> Any:
    """Two completions in prose, of equal reward."""
    drawn = (Trajectory(EMPTY, np.zeros(0, np.float32), ((0, 0, 0),), "On the left.", "stop"),) * 2
    sample = Sample("s", "test", "a", "Where?", "left", video_path="a.mp4")
    info = FrameInfo("key", (0.0, 4.0), (56, 56), (56, 56), 5.0)
    terms = {"acc": np.zeros(2, np.float32), "format": np.zeros(2, np.float32), "ser": np.zeros(2, np.float32)}
    group = Group(0, sample, info, Prompt(EMPTY, EMPTY, EMPTY, EMPTY), drawn, 0)
    scored = ScoredGroup(group, np.zeros(2, np.float32), terms, terms, {}, ((), ()))
    return SimpleNamespace(scored=scored, asking=(0.0, 0.0))


def test_steps_without_anything_to_learn_are_warned_about_and_the_rate_is_smoothed(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = load_config(TrainConfig, "configs/experiment/quickstart.yaml", ["wandb=disabled"])
    monkeypatch.setattr(StepReport, "_counters", lambda _: {})  # the pipeline's
    pool = SimpleNamespace(take_begun=lambda: [1], take_done=lambda: [(1.0, 60)], queue=0)
    pipeline: Any = SimpleNamespace(rollout_pool=pool)
    with caplog.at_level(logging.WARNING), StepReport(tmp_path, config, pipeline, Ledger()) as report:
        for step in range(1, WATCHED_STEPS + 1):
            times = StepTimes(began=0.0, waited_s=0.5, step_s=float(step))
            report.step_ended(step, Batch(0, (0,), (0,)), [ready_group()], {}, times, {})
    (message,) = caplog.messages
    assert "there is nothing to learn from; 0 of 10 completions hold a claim" in message
    lines = capsys.readouterr().out.splitlines()
    assert "  2.0 samples/s over 1 step  " in lines[0]
    assert "  0.7 samples/s over 5 steps  " in lines[-1], "10 completions in 15 s"


def test_the_alerts_of_a_resumed_run_go_on_with_the_steps_that_it_keeps(tmp_path: Path) -> None:
    config = load_config(TrainConfig, "configs/experiment/quickstart.yaml", ["wandb=disabled"])
    lines = [{"step": 1, "learner/skipped": 0}, {"step": 2, "learner/skipped": 0}, {"step": 3, "learner/skipped": 1}]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    pool = SimpleNamespace(take_begun=lambda: [1], take_done=lambda: [(1.0, 60)])
    pipeline: Any = SimpleNamespace(rollout_pool=pool)
    with StepReport(tmp_path, config, pipeline, Ledger(), step=2) as report:
        _, raised = report.alerts.step(lines[2])
    assert [alert.name for alert in raised] == ["not_finite"]


def test_a_checkpoint_of_another_version_is_refused_in_one_line(tmp_path: Path) -> None:
    config = load_config(TrainConfig, "configs/experiment/quickstart.yaml", ["wandb=disabled"])
    pipeline: Any = SimpleNamespace(rollout_pool=None)
    with pytest.raises(BadInput, match="was written by another version of SER"):
        StepReport(tmp_path, config, pipeline, Ledger(), step=2, state={"rewards": {}, "counts": {}})
