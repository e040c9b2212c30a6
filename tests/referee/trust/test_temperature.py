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
    """Probabilities, and one-hot labels drawn from them."""
    true = rng.dirichlet([0.7, 0.7, 0.7], n)
    return true, np.array([np.eye(3)[rng.choice(3, p=row)] for row in true])


@given(three, st.floats(0.05, 20))
def test_scaling_keeps_order_and_sum(p, temperature):
    scaled = rescaled(p, temperature)
    assert scaled.sum() == pytest.approx(1)
    order = np.argsort(p)
    assert (np.diff(scaled[order]) >= -1e-12).all()
    assert rescaled(p, 1.0) == pytest.approx(p)


@pytest.mark.parametrize("p", [[0.0, 0.1, 0.9], [0.0, 0.0, 1.0], [1e-20, 0.5, 0.5]])
def test_reading_and_fitting_agree_on_underflowed_probabilities(p: list[float]):
    assert read_scale(p, "expected", 20.0) == pytest.approx(rescaled(np.array(p), 20.0) @ [0, 0.5, 1])


def test_a_higher_temperature_flattens():
    p = np.array([0.1, 0.1, 0.8])
    assert rescaled(p, 1e6) == pytest.approx([1 / 3] * 3, abs=1e-4)
    assert rescaled(p, 0.05) == pytest.approx([0, 0, 1], abs=1e-6)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_fit_recovers_a_known_temperature(temperature: float):
    true, labels = drawn(np.random.default_rng(0), 6000)
    distorted = rescaled(true, 1 / temperature)
    fitted = fit_temperature(distorted, labels)
    assert fitted == pytest.approx(temperature, rel=0.08)
    assert log_loss(distorted, labels, fitted) <= log_loss(distorted, labels)


def test_disagreeing_raters_raise_the_temperature_of_a_confident_referee():
    confident = np.tile([0.01, 0.01, 0.98], (10, 1))
    agreed, disputed = np.tile([0.0, 0.0, 1.0], (10, 1)), np.tile([0.25, 0.25, 0.5], (10, 1))
    assert fit_temperature(confident, disputed) > 2 > 1 > fit_temperature(confident, agreed)


def test_the_log_loss_of_a_label_with_probability_0_is_finite():
    assert np.isfinite(log_loss(np.array([[1.0, 0.0, 0.0]]), np.array([[0.0, 0.0, 1.0]])))


def test_fitting_without_labels_is_refused():
    with pytest.raises(ValueError, match="no labels"):
        fit_temperature(np.empty((0, 3)), np.empty((0, 3)))


def test_a_written_calibration_can_be_read(tmp_path):
    path = tmp_path / "calibration.json"
    write_calibration(path, {"relevance": 1.5, "localization": 0.75}, "abc")
    calibration = read_calibration(path)
    assert (calibration.temperature, calibration.referee) == ({"relevance": 1.5, "localization": 0.75}, "abc")


@given(three, st.floats(0.2, 5))
def test_reading_uses_the_scaling_that_was_fitted(p, temperature):
    assert read_scale(p, "expected", temperature) == pytest.approx(rescaled(p, temperature) @ np.arange(3) / 2)
