"""Numbers that JSON cannot hold, and those that it can."""

from __future__ import annotations

import json

import numpy as np
import pytest

from evidence.plain import dumps, plain


def test_what_json_cannot_hold_becomes_null_wherever_it_is() -> None:
    nested = {"a": [float("nan"), 0.5], "b": (float("inf"), np.float32("-inf")), "c": np.array([1.0, np.nan])}
    assert json.loads(dumps(nested)) == {"a": [None, 0.5], "b": [None, None], "c": [1.0, None]}


def test_numpy_values_become_plain_ones() -> None:
    value = plain({"n": np.int64(3), "yes": np.bool_(True), 1: np.zeros((2, 1), np.uint8)})
    assert value == {"n": 3, "yes": True, "1": [[0], [0]]}
    assert [type(value["n"]), type(value["yes"])] == [int, bool]


@pytest.mark.parametrize(
    ("value", "places", "written"),
    [(0.123456, 4, "0.1235"), (-0.00001, 4, "0.0"), (0.1234567, None, "0.1234567"), (7, 2, "7"), (True, 2, "true")],
)
def test_floats_are_rounded_where_that_is_asked_for(value: float, places: int | None, written: str) -> None:
    assert dumps(value, places) == written
