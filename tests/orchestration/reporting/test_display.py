"""Durations, missing values and the smoothed rate as the terminal shows them."""

from __future__ import annotations

import pytest

from orchestration.reporting.display import SMOOTHED_STEPS, Throughput, cell, clock


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (754, "12:34"), (3600, "1:00:00")]
)
def test_a_duration_has_hours_from_one_hour_on(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_a_missing_value_is_a_dash() -> None:
    assert (cell(None), cell(0.0), cell(0.4567)) == ("-", "0.000", "0.457")


def test_the_rate_is_that_of_the_last_steps_together() -> None:
    throughput = Throughput()
    assert throughput.step_ended(64, 2.0) == "32.0 samples/s over 1 step"
    # 128 completions in 8 s; the mean of the two rates would be 21.3.
    assert throughput.step_ended(64, 6.0) == "16.0 samples/s over 2 steps"
    for _ in range(SMOOTHED_STEPS - 1):
        throughput.step_ended(64, 6.0)
    assert throughput.step_ended(64, 1.0) == "11.6 samples/s over 10 steps", "640 completions in 9 times 6 s and 1 s"
