"""The held-out results before and after training, as wandb's summary has them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_runs import started

from evaluation.comparison import Evaluation
from orchestration import train
from orchestration.reporting import steps
from orchestration.reporting.metric_table import metric_of
from orchestration.reporting.metrics import RunLog
from orchestration.reporting.summary import heldout_values


def evaluation(rewards: list[float], clips: str = "abcd", iou: float = np.nan) -> Evaluation:
    values = np.array(rewards)
    ones = np.ones(len(values))
    return Evaluation(tuple(clips), values, ones, ones * iou, 2 * ones, np.arange(len(values)) % 2.0, ones * np.nan)


def test_means_and_changes_are_of_the_clips_that_both_evaluations_read() -> None:
    before = [evaluation([0.0, 0.5, 0.5, 1.0]), evaluation([0.25] * 4, iou=0.5)]
    first = heldout_values(before)
    assert first["heldout/greedy/before/reward"] == 0.5
    assert first["heldout/sampled/before/iou"] == 0.5
    assert not any("after" in name or "change" in name or name.endswith("box_area") for name in first)
    assert "heldout/greedy/before/iou" not in first, "no clip is labelled"

    values = heldout_values(before, [evaluation([0.25, 1.0, 1.0], "bcd"), evaluation([0.5] * 4, iou=0.25)])
    reward = [values[f"heldout/greedy/{when}/reward"] for when in ("before", "after", "change")]
    assert reward == pytest.approx([2 / 3, 0.75, 1 / 12])
    assert values["heldout/sampled/change/iou"] == -0.25
    assert values["heldout/greedy/change/claims"] == 0.0
    assert values["heldout/sampled/after/valid_claim_share"] == 0.5
    assert all(metric_of(name) for name in values)
    assert heldout_values([]) == heldout_values([], []) == {}


def test_a_run_puts_them_into_wandb_before_it_trains_and_once_more_when_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, training = started(tmp_path, lambda group: True, lambda group: False, 1, overrides=("wandb=offline",))
    learner: Any = training.parts.learner
    before, after = [evaluation([0.0] * 4)] * 2, [evaluation([0.75] * 4)] * 2
    seen: list[tuple[int, bool, float | None]] = []

    def summarise(log: RunLog, values: dict[str, float]) -> None:
        seen.append((len(learner.steps), learner.stopped, values.get("heldout/sampled/change/reward")))
        kept(log, values)

    async def evaluate(*_: Any) -> list[Evaluation]:
        return after

    kept = RunLog.summarise
    monkeypatch.setattr(RunLog, "summarise", summarise)
    monkeypatch.setattr(train, "evaluate_policy", evaluate)
    monkeypatch.setattr(train, "Training", lambda *_: training)
    monkeypatch.setattr(steps, "due", lambda step: False)  # no frames are there to be shown
    _, evaluated, _ = asyncio.run(run._train_to_the_end(training.parts, training.begin, before))
    assert evaluated is after
    assert seen == [(0, False, None), (1, True, 0.75)], "the learner's memory is free in the last evaluation"
    (stored,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    content = stored.read_bytes()
    for when in ("before", "after", "change"):
        assert f"heldout/greedy/{when}/reward".encode() in content
    assert training.report._log._wandb.failed == 0
