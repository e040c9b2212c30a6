import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from referee.service.sources import read_calibration
from referee.trust.temperature import fit_temperature, log_loss, write_calibration
from referee.verification import read_scale, rescaled

share = st.floats(0.001, 1)
three = st.tuples(share, share, share).map(lambda p: np.array(p) / sum(p))


def drawn(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and labels drawn from them, one-hot."""
    true = rng.dirichlet([0.7, 0.7, 0.7], n)
    return true, np.array([np.eye(3)[rng.choice(3, p=row)] for row in true])


@given(three, st.floats(0.05, 20))
def test_scaling_keeps_order_and_sum_and_is_undone_by_its_inverse(p, temperature):
    scaled = rescaled(p, temperature)
    assert scaled.sum() == pytest.approx(1)
    order = np.argsort(p)
    assert (np.diff(scaled[order]) >= -1e-12).all()
    assert rescaled(p, 1.0) == pytest.approx(p)


@pytest.mark.parametrize("p", [[0.0, 0.1, 0.9], [0.0, 0.0, 1.0], [1e-20, 0.5, 0.5]])
def test_a_run_reads_what_was_fitted_also_where_a_probability_underflowed(p: list[float]):
    assert read_scale(p, "expected", 20.0) == pytest.approx(rescaled(np.array(p), 20.0) @ [0, 0.5, 1])


def test_a_higher_temperature_is_milder():
    p = np.array([0.1, 0.1, 0.8])
    assert rescaled(p, 1e6) == pytest.approx([1 / 3] * 3, abs=1e-4)
    assert rescaled(p, 0.05) == pytest.approx([0, 0, 1], abs=1e-6)


@pytest.mark.parametrize("wrong_by", [0.4, 1.0, 2.5])
def test_the_fit_finds_the_temperature_that_was_put_in(wrong_by: float):
    true, labels = drawn(np.random.default_rng(0), 6000)
    given_by_referee = rescaled(true, 1 / wrong_by)
    fitted = fit_temperature(given_by_referee, labels)
    assert fitted == pytest.approx(wrong_by, rel=0.08)
    assert log_loss(given_by_referee, labels, fitted) <= log_loss(given_by_referee, labels)


def test_raters_who_differ_make_a_sure_referee_milder():
    sure = np.tile([0.01, 0.01, 0.98], (10, 1))
    agreed, torn = np.tile([0.0, 0.0, 1.0], (10, 1)), np.tile([0.25, 0.25, 0.5], (10, 1))
    assert fit_temperature(sure, torn) > 2 > 1 > fit_temperature(sure, agreed)


def test_impossible_by_the_referee_is_finite():
    assert np.isfinite(log_loss(np.array([[1.0, 0.0, 0.0]]), np.array([[0.0, 0.0, 1.0]])))


def test_nothing_to_fit_on():
    with pytest.raises(ValueError, match="no label"):
        fit_temperature(np.empty((0, 3)), np.empty((0, 3)))


def test_a_calibration_is_what_a_source_reads(tmp_path):
    path = tmp_path / "calibration.json"
    write_calibration(path, {"relevance": 1.5, "localization": 0.75}, "abc")
    read = read_calibration(path)
    assert (read.temperature, read.referee) == ({"relevance": 1.5, "localization": 0.75}, "abc")


@given(three, st.floats(0.2, 5))
def test_what_is_fitted_is_what_is_then_used(p, temperature):
    """The scaling that is fitted here and the one that verdicts are read by are one."""
    assert read_scale(p, "expected", temperature) == pytest.approx(rescaled(p, temperature) @ np.arange(3) / 2)
