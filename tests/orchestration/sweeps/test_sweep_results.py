"""The numbers of a sweep's tables: means, intervals over seeds and over clips, differences on common seeds."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from evaluation.comparison import Evaluation, paired_bootstrap_ci
from evaluation.heldout import ClipRecord
from orchestration.run_report.recorded import Run
from orchestration.sweeps.results import Result, differences, interval, last_reward, means, metrics_of, result
from orchestration.sweeps.state import RunRecord
from orchestration.sweeps.table import Tables

REWARD = "greedy/reward_after"
SUMMARY = {
    **{"reward_before": 0.3, "reward_after": 0.5, "iou_before": None, "iou_after": 0.4, "reward_ci95": [0.1, 0.3]},
    "sampled": {"reward_after": 0.45},
    **{"trained_groups": 24, "wall_s": 12.5, "versions": {"ray": "2"}},
}


def run(steps: int = 20, **fields: Any) -> Run:
    lines = tuple({"step": n, "reward": float(n)} for n in range(1, steps + 1))
    return Run(Path("runs/x"), "x", steps=lines, **fields)


def evaluation(reward: list[float], clips: str = "abcd", iou: list[float] | None = None) -> Evaluation:
    values = np.array(reward)
    labelled = np.full(len(values), 0.5) if iou is None else np.array(iou)
    return Evaluation(tuple(clips), values, values, labelled, values, values, values)


def of(arm: str, seed: int | None, value: float, heldout: Evaluation | None = None, status: str = "done") -> Result:
    return Result(f"{arm}_{seed}", arm, seed, status, 3, {REWARD: value}, heldout=heldout)


def test_the_metrics_of_a_run_are_all_numbers_of_its_files() -> None:
    evaluations = (
        {"step": 5, "version": 5, "set": "heldout", "n": 4, "seconds": 1.0, "reward": 0.1, "ci95": {}},
        {"step": 9, "version": 9, "set": "heldout", "n": 4, "seconds": 1.0, "reward": 0.2},
        {"step": 9, "version": 9, "set": "vstar", "n": 4, "seconds": 1.0, "what": 0.7},
    )
    assert metrics_of(run(summary=SUMMARY, evaluations=evaluations)) == {
        "train/reward": 19.5,
        **{"greedy/reward_before": 0.3, "greedy/reward_after": 0.5, "greedy/iou_after": 0.4},
        **{"sampled/reward_after": 0.45, "trained_groups": 24.0, "wall_s": 12.5},
        **{"eval/heldout/reward": 0.2, "eval/vstar/what": 0.7},
    }


def test_the_last_reward_is_the_mean_of_the_last_tenth() -> None:
    assert last_reward(run(steps=20)) == 19.5
    assert last_reward(run(steps=3)) == 3.0
    assert last_reward(run(steps=0)) is None


def test_a_run_that_has_not_begun_and_one_that_failed_are_rows_too() -> None:
    record = RunRecord("a", "arm", 3, [], "d", status="failed", reason="out of memory")
    assert result(record, None) == Result("a", "arm", 3, "failed", 0, {}, "out of memory")
    metrics = {"train/reward": 2.0}
    assert result(record, run(steps=2)) == Result("a", "arm", 3, "failed", 2, metrics, "out of memory")


def test_held_out_clips_count_once_a_run_has_finished_and_all_are_judged() -> None:
    clip = ClipRecord(*_clip_values(reward=0.5))
    unjudged = ClipRecord(*_clip_values(reward=float("nan")))
    record = RunRecord("a", "arm", 3, [], "d", status="done")
    held = result(record, run(summary=SUMMARY, heldout={(20, "greedy"): [clip]})).heldout
    assert held is not None
    assert held.reward.tolist() == [0.5]
    assert result(record, run(heldout={(20, "greedy"): [clip]})).heldout is None
    assert result(record, run(summary=SUMMARY, heldout={(20, "greedy"): [unjudged]})).heldout is None


def _clip_values(reward: float) -> list[Any]:
    known = {
        "clip": "a",
        "reward": reward,
        "accuracy": 1.0,
        "iou": 0.5,
        "claims": 1,
        "valid_claims": 1,
        "box_area": 0.1,
    }
    return [known.get(name) for name in ClipRecord.__dataclass_fields__]


def test_means_have_students_interval_over_seeds() -> None:
    results = [of("a", 0, 1.0), of("a", 1, 2.0), of("a", 2, 3.0), of("b", 0, 5.0), of("b", 1, 9.0, status="failed")]
    first, second = means(results)
    assert (first.arm, first.metric, first.n, first.mean) == ("a", REWARD, 3, 2.0)
    # t(.975, 2) = 4.3027, standard error 1 / sqrt(3)
    assert (first.low, first.high) == pytest.approx((2 - 2.4842, 2 + 2.4842), abs=1e-3)
    assert (second.n, second.mean, second.low, second.high) == (1, 5.0, None, None)


def test_equal_values_have_an_interval_of_no_width() -> None:
    assert interval(np.array([0.5, 0.5])) == (0.5, 0.5)
    assert interval(np.array([0.5])) == (None, None)


def test_differences_are_on_common_seeds_and_from_the_first_arm() -> None:
    results = [of("a", 0, 1.0), of("a", 1, 2.0), of("a", 2, 9.0), of("b", 1, 2.5), of("b", 0, 1.1), of("b", 7, 0.0)]
    (row,) = differences(results)
    assert (row.arm, row.baseline, row.n) == ("b", "a", 2)
    assert row.difference == pytest.approx(0.3)
    assert row.low == pytest.approx(0.3 - 12.7062 * 0.2, abs=1e-3)
    assert (row.clips_low, row.clips_high) == (None, None)


def test_arms_without_common_seeds_or_without_their_baseline_are_not_compared() -> None:
    assert differences([of("a", 0, 1.0), of("b", 1, 2.0)]) == []
    assert differences([of("a", 0, 1.0, status="running"), of("b", 0, 2.0), of("c", 0, 2.0)]) == []


def test_single_runs_are_compared_over_their_clips() -> None:
    base, other = evaluation([0.1, 0.2, 0.3, 0.4]), evaluation([0.2, 0.4, 0.3, 0.9])
    (row,) = differences([of("a", None, 0.25, base), of("b", None, 0.45, other)])
    assert (row.n, row.low, row.high) == (1, None, None)
    assert (row.clips_low, row.clips_high) == paired_bootstrap_ci(base.reward, other.reward)


def test_clips_are_averaged_over_seeds_and_must_be_readable_in_all_runs() -> None:
    results = [
        of("a", 0, 0.0, evaluation([0.0, 0.0, 0.0], "abc")),
        of("a", 1, 0.0, evaluation([0.2, 0.4], "ac")),
        of("b", 0, 0.0, evaluation([1.0, 3.0, 2.0], "acb")),
        of("b", 1, 0.0, evaluation([1.0, 1.0], "ca")),
    ]
    (row,) = differences(results)
    expected = paired_bootstrap_ci(np.array([0.1, 0.2]), np.array([1.0, 2.0]))
    assert (row.clips_low, row.clips_high) == expected


def test_unlabelled_clips_are_left_out_of_the_iou() -> None:
    metric = "greedy/iou_after"
    base, other = (evaluation([0.0] * 4, iou=[iou, np.nan, iou, iou + 0.1]) for iou in (0.2, 0.4))
    pair = [
        Result(arm, arm, 0, "done", 3, {metric: 0.5}, heldout=heldout) for arm, heldout in (("a", base), ("b", other))
    ]
    (row,) = differences(pair)
    assert (row.clips_low, row.clips_high) == pytest.approx((0.2, 0.2))
    nobody = evaluation([0.0] * 4, iou=[np.nan] * 4)
    (row,) = differences([replace(run, heldout=nobody) for run in pair])
    assert (row.clips_low, row.clips_high) == (None, None)


def shown(results: list[Result]) -> str:
    console = Console(file=io.StringIO(), width=140)
    Tables(results, means(results), differences(results)).show(console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_terminal_shows_runs_means_and_differences() -> None:
    text = shown([of("a", 0, 1.0), of("a", 1, 2.0), of("b", 0, 1.5), of("b", 1, 2.5)])
    assert "means over seeds, 95% interval" in text
    assert "differences from a, on common seeds" in text
    assert "+0.500" in text
    assert "accuracy" not in text, "no run has it"
    single = shown([of("base", 0, 1.0), of("base", 1, 2.0, status="waiting")])
    assert "means over" not in single
    assert "differences" not in single
    assert "waiting" in single


def test_the_csv_has_a_row_per_run_and_every_metric() -> None:
    results = [
        of("a", 0, 1.0),
        Result("b", "b", None, "failed", 2, {"wall_s": 3.0}, "no, it did\nnot"),
    ]
    rows = list(csv.DictReader(io.StringIO(Tables(results, means(results), []).csv())))
    assert [row["run"] for row in rows] == ["a_0", "b"]
    assert [row[REWARD] for row in rows] == ["1.0", ""]
    assert rows[1]["reason"] == "no, it did\nnot"


def test_everything_is_plain_data() -> None:
    results = [of("a", 0, 1.0), of("a", 1, 2.0), of("b", 0, 3.0)]
    plain = Tables(results, means(results), differences(results)).plain("mine")
    assert plain["sweep"] == "mine"
    assert plain["runs"][0] == {
        **{"run": "a_0", "arm": "a", "seed": 0, "status": "done", "step": 3, "reason": ""},
        "metrics": {REWARD: 1.0},
    }
    assert plain["arms"][0]["n"] == 2
    assert plain["differences"][0]["difference"] == 2.0
