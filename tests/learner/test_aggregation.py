"""The weight of each token in its step, against numbers computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from learner.aggregation import token_weights

LENGTHS = np.array([1, 3])


@pytest.mark.parametrize(
    ("aggregate", "wanted"),
    [
        ("sequence_mean", [1 / 2, 1 / 6, 1 / 6, 1 / 6]),
        ("token_mean", [1 / 4] * 4),
        ("constant", [1 / 16] * 4),  # two completions of at most eight tokens
    ],
)
def test_weights_of_two_completions(aggregate: str, wanted: list[float]) -> None:
    weights = token_weights(LENGTHS, aggregate, 8)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, wanted, rtol=1e-6)


def test_the_constant_has_no_default_length() -> None:
    with pytest.raises(ZeroDivisionError):
        token_weights(LENGTHS, "constant")


@pytest.mark.parametrize(
    ("aggregate", "wanted"),
    [
        ("sequence_mean", [1 / 2, 0, 0, 0, 1 / 4, 1 / 4]),
        ("token_mean", [1 / 3, 0, 0, 0, 1 / 3, 1 / 3]),
        ("constant", [1 / 24, 0, 0, 0, 1 / 24, 1 / 24]),  # still of three completions of at most eight tokens
    ],
)
def test_a_completion_that_is_not_trained_is_no_part_of_a_mean(aggregate: str, wanted: list[float]) -> None:
    weights = token_weights(np.array([1, 3, 2]), aggregate, 8, np.array([True, False, True]))
    np.testing.assert_allclose(weights, wanted, rtol=1e-6)
    assert not token_weights(LENGTHS, aggregate, 8, np.array([False, False])).any()
