"""Policies compared clip by clip, with intervals."""

from __future__ import annotations

import numpy as np
import pytest
from evaluations import evaluation

from evaluation.comparison import common_clips, comparison, paired_bootstrap_ci


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
