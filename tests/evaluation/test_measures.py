"""Metrics from sums, and intervals over videos."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.measures import intervals, nested, paired, share, values
from referee.trust.statistics import bootstrap


def accuracy(sums):
    return {("acc",): share(sums[..., 0], sums[..., 1])}


def table(scores):
    return np.stack([np.asarray(scores, float), np.ones(len(scores))], axis=1)


def test_intervals_equal_the_bootstrap_of_the_referee():
    rng = np.random.default_rng(3)
    scores, videos = rng.random(40), [f"v{n // 3}" for n in range(40)]
    expected = bootstrap(videos, lambda chosen: float(scores[chosen].mean()), 200, 7)
    assert intervals(videos, table(scores), accuracy, 200, 7)["acc",] == pytest.approx(expected)


def test_whole_videos_are_drawn():
    # All questions of a video are right or wrong together: the interval is that of two draws, not of twenty.
    wide = intervals(["a"] * 10 + ["b"] * 10, table([1] * 10 + [0] * 10), accuracy, 500)["acc",]
    narrow = intervals(list(range(20)), table([1] * 10 + [0] * 10), accuracy, 500)["acc",]
    assert wide == (0, 1)
    assert 0.2 < narrow[0] < narrow[1] < 0.8


def test_paired_differences_draw_the_same_videos():
    first = np.random.default_rng(0).random(30)
    difference, low, high = paired(list(range(30)), table(first), table(first + 0.125), accuracy, 100)["acc",]
    assert (difference, low, high) == pytest.approx((0.125, 0.125, 0.125))


def test_a_share_of_nothing_is_nan():
    assert np.isnan(values(np.zeros((2, 2)), accuracy)["acc",])
    assert all(np.isnan(end) for end in intervals(["a", "b"], np.zeros((2, 2)), accuracy, 10)["acc",])


def test_nested():
    assert nested({("acc",): 1, ("chain1", "r1", "0.3"): 2}) == {"acc": 1, "chain1": {"r1": {"0.3": 2}}}


def test_a_part_of_less_than_one_has_a_share():
    # Weights may add up to less than 1; and nothing is divided by 0.
    with np.errstate(all="raise"):
        shares = share(np.array([0.25, 1.0, 0.0]), np.array([0.5, 0.0, 0.0]))
    np.testing.assert_array_equal(shares, [0.5, np.nan, np.nan])


def test_the_default_seed_and_number_of_resamples_stay():
    scores = np.random.default_rng(1).random(12)
    columns, videos = table(scores), list(range(12))
    assert intervals(videos, columns, accuracy) == intervals(videos, columns, accuracy, 1000, 0)
    both = paired(videos, columns, table(scores[::-1]), accuracy)
    assert both == paired(videos, columns, table(scores[::-1]), accuracy, 1000, 0)
    assert both != paired(videos, columns, table(scores[::-1]), accuracy, 1000, 1)


def test_resamples_in_which_a_metric_is_not_known_are_left_out():
    # Of two videos only one is counted, so a quarter of the resamples have no share.
    columns = np.array([[1.0, 1.0], [0.0, 0.0]])
    assert intervals(["a", "b"], columns, accuracy, 40)["acc",] == (1, 1)
