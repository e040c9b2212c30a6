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
