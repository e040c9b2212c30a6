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
