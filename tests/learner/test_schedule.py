"""The learning rate over a run, against numbers computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from evidence.errors import BadInput
from learner.schedule import Schedule

AT = (0, 49, 100, 325, 550, 1000)


@pytest.mark.parametrize(
    ("shape", "floor", "after"),
    [
        ("cosine", 0.0, [1, 0.5 + 0.25 * np.sqrt(2), 0.5, 0]),
        ("cosine", 0.1, [1, 0.1 + 0.9 * (0.5 + 0.25 * np.sqrt(2)), 0.55, 0.1]),
        ("linear", 0.2, [1, 0.8, 0.6, 0.2]),
        ("constant", 0.0, [1, 1, 1, 1]),
    ],
)
def test_warm_up_and_decay_to_the_floor(shape: str, floor: float, after: list[float]) -> None:
    schedule = Schedule(lr=1e-3, warmup=100, shape=shape, floor=floor)
    rates = [schedule.rate(step, 1000) for step in AT]
    np.testing.assert_allclose(rates, 1e-3 * np.array([0.01, 0.5, *after]), rtol=1e-6, atol=1e-12)


def test_without_warm_up_it_starts_at_its_peak_and_a_run_may_be_all_warm_up() -> None:
    assert Schedule(lr=2.0, warmup=0).rate(0, 10) == 2.0
    assert Schedule(lr=2.0, warmup=4).rate(3, 4) == 2.0


@pytest.mark.parametrize(
    ("change", "message"),
    [({"lr": 0.0}, "lr = 0"), ({"warmup": -1}, "warmup"), ({"shape": "step"}, "cosine"), ({"floor": 2.0}, "floor")],
)
def test_invalid_schedules_are_refused(change: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Schedule(**change)
