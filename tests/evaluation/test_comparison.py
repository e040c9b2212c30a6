"""Policies compared clip by clip, with intervals."""

from __future__ import annotations

import numpy as np
import pytest
from evaluations import evaluation

from evaluation.comparison import as_evaluation, common_clips, comparison, paired_bootstrap_ci
from evaluation.heldout import ClipRecord


def test_a_clip_unreadable_in_one_evaluation_is_left_out_of_both() -> None:
    before, after = evaluation([0, 1, 2, 3]), evaluation([4, 6, 7, 8], clips=("b", "c", "d", "e"))
    left, right = common_clips(before, after)
    assert left.clips == right.clips == ("b", "c", "d")
    assert left.reward.tolist() == [1, 2, 3]
    assert right.reward.tolist() == [4, 6, 7]


def test_the_interval_is_of_the_paired_difference() -> None:
    rng = np.random.default_rng(1)
    before = rng.normal(0, 10, 400)
    gain = rng.normal(0.5, 1, 400)
    low, high = paired_bootstrap_ci(before, before + gain)
    # Unpaired, the half-width would be about 1.4; paired it is 1.96 standard errors of the gain.
    half = 1.96 * gain.std() / np.sqrt(400)
    assert low == pytest.approx(gain.mean() - half, abs=0.005)
    assert high == pytest.approx(gain.mean() + half, abs=0.005)
    assert (low, high) == paired_bootstrap_ci(before, before + gain)
    assert (low, high) != paired_bootstrap_ci(before, before + gain, seed=1)


def test_the_interval_of_two_clips_equals_a_case_worked_by_hand() -> None:
    # Two clips that differ by 0 and 1: a resample's mean is 0, .5 or 1 with probability 1/4, 1/2, 1/4.
    before, after = np.zeros(2), np.array([0.0, 1.0])
    assert paired_bootstrap_ci(before, after, level=0.95) == (0.0, 1.0)
    assert paired_bootstrap_ci(before, after, level=0.3) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("before", "after"),
    [([], []), ([1.0], [1.0, 2.0]), ([1.0, float("nan")], [1.0, 2.0])],
)
def test_the_interval_needs_one_finite_pair_per_clip(before: list[float], after: list[float]) -> None:
    with pytest.raises(ValueError, match=r"one value per clip|finite value for every clip"):
        paired_bootstrap_ci(np.array(before), np.array(after))


def test_iou_is_compared_on_the_labelled_clips_only() -> None:
    nan = float("nan")
    before = evaluation([0, 0, 0, 0], iou=[0.2, nan, 0.4, nan])
    report = comparison(before, evaluation([1, 1, 1, 1], iou=[0.3, nan, 0.5, nan]))
    assert (report["iou_before"], report["iou_after"]) == (pytest.approx(0.3), pytest.approx(0.4))
    assert report["iou_ci95"] == pytest.approx([0.1, 0.1])
    assert (report["heldout_clips"], report["reward_after"]) == (4, 1.0)
    unlabelled = evaluation([0, 0, 0, 0], iou=[nan] * 4)
    report = comparison(unlabelled, unlabelled)
    assert (report["iou_before"], report["iou_after"], report["iou_ci95"]) == (None, None, None)
    assert report["accuracy_ci95"] == [0.0, 0.0]


def test_a_label_that_only_one_evaluation_has_is_refused() -> None:
    nan = float("nan")
    with pytest.raises(ValueError, match="finite value for every clip"):
        comparison(evaluation([0] * 4, iou=[0.2, 0.2, nan, nan]), evaluation([0] * 4, iou=[0.2, nan, nan, nan]))


def test_all_values_of_a_report_are_those_of_the_clips() -> None:
    nan = float("nan")
    before = evaluation([0, 1, 2, 3])
    after = evaluation([1, 1, 2, 4], claims=[1, 1, 1, 0], valid_claims=[1, 0, 0, 0], box_area=[nan] * 4)
    report = comparison(before, after, seed=3)
    assert report == {
        "heldout_clips": 4,
        "reward_before": 1.5,
        "reward_after": 2.0,
        "reward_ci95": list(paired_bootstrap_ci(before.reward, after.reward, seed=3)),
        "accuracy_before": 0.75,
        "accuracy_after": 0.75,
        "accuracy_ci95": [0.0, 0.0],
        "iou_before": 0.25,
        "iou_after": 0.25,
        "iou_ci95": [0.0, 0.0],
        "claims_before": 2.0,
        "valid_claim_share_before": 0.75,  # one valid claim is enough
        "box_area_before": pytest.approx(0.2),
        "claims_after": 0.75,
        "valid_claim_share_after": 0.25,
        "box_area_after": None,
    }


def test_the_interval_of_a_comparison_is_drawn_by_its_seed() -> None:
    rewards, nothing = np.random.default_rng(0).random((2, 30)), [0.0] * 30
    same = dict.fromkeys(("accuracy", "iou", "claims", "valid_claims", "box_area"), nothing)
    before, after = (evaluation(list(reward), tuple(map(str, range(30))), **same) for reward in rewards)
    intervals = [list(paired_bootstrap_ci(*rewards, seed=seed)) for seed in (0, 1)]
    assert intervals[0] != intervals[1]
    assert [comparison(before, after, seed=seed)["reward_ci95"] for seed in (0, 1)] == intervals
    assert comparison(before, after)["reward_ci95"] == intervals[0]


def test_other_clips_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^before and after are not the same clips in the same order$"):
        comparison(evaluation([0] * 4), evaluation([0] * 4, clips=("a", "b", "d", "c")))


def clip_record(clip: str, **changes: float) -> ClipRecord:
    values = {"reward": 0.5, "accuracy": 1.0, "iou": 0.25, "claims": 3, "valid_claims": 2, "box_area": 0.1} | changes
    return ClipRecord(clip, "text", **values, claim_ious=(), frame_size=(56, 56), frame_times=(0.0,))


def test_an_evaluation_has_the_values_of_its_records() -> None:
    made = as_evaluation([clip_record("a"), clip_record("b", reward=1, accuracy=0, iou=0, claims=1, box_area=0.2)])
    assert made.clips == ("a", "b")
    columns = {
        name: getattr(made, name) for name in ("reward", "accuracy", "iou", "claims", "valid_claims", "box_area")
    }
    assert {name: column.tolist() for name, column in columns.items()} == {
        "reward": [0.5, 1],
        "accuracy": [1, 0],
        "iou": [0.25, 0],
        "claims": [3, 1],
        "valid_claims": [2, 2],
        "box_area": [0.1, 0.2],
    }
    assert {column.dtype for column in columns.values()} == {np.dtype(np.float64)}


def test_a_missing_verdict_is_named() -> None:
    lacking = [clip_record("a"), clip_record("b", reward=float("nan")), clip_record("c", reward=float("nan"))]
    with pytest.raises(ValueError, match=r"^2 held-out clips have no verdict, b first; is the referee alive\?$"):
        as_evaluation(lacking)
