"""The ranges of the limits."""

from __future__ import annotations

from typing import Any

import pytest

from evidence.errors import BadInput
from evidence.limits import Limits


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [("restarts_per_hour", 0, "1 or more"), ("heartbeat_s", 0.0, "above 0"), ("stall_s", float("nan"), "above 0")],
)
def test_a_limit_out_of_range_is_named(key: str, value: Any, wanted: str) -> None:
    with pytest.raises(BadInput, match=rf"^{key} = {value}: must be {wanted}"):
        Limits(**{key: value})


def test_a_single_restart_an_hour_is_enough_to_ask_for() -> None:
    assert Limits(restarts_per_hour=1).collective_s == Limits().collective_s == 1800.0


def test_limits_follow_from_the_bytes_of_large_weights():
    small, large = Limits().for_weights(15 * 2**30), Limits().for_weights(65 * 2**30)
    assert small.publish_s == Limits().publish_s
    assert (large.publish_s, large.update_s) == (pytest.approx(665.6), pytest.approx(665.6))
    assert large.start_s == pytest.approx(600 + 665.6)
    assert large.save_s == pytest.approx(6 * 665.6)
    assert large.for_weights(65 * 2**30) == large
    assert Limits(mib_per_s=1000).for_weights(65 * 2**30) == Limits(mib_per_s=1000)
    assert large.step_s == Limits().step_s
