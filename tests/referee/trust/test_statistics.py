import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from referee.trust.statistics import (
    THRESHOLDS,
    auroc,
    bootstrap,
    calibration_error,
    kappa,
    reliability,
    spearman,
    threshold_table,
)

few = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=12).map(np.array)


@given(few, few)
def test_auroc_is_the_share_of_ordered_pairs_with_ties_counted_half(positives, negatives):
    pairs = [(p > n) + 0.5 * (p == n) for p in positives for n in negatives]
    assert auroc(positives, negatives) == pytest.approx(np.mean(pairs))


# Figures that are not determined are found before they are computed, so that no library warns.
silent = pytest.mark.filterwarnings("error")


@silent
def test_undetermined_figures_are_nan():
    empty, constant, varied = np.array([]), np.array([0.5, 0.5]), np.array([0.1, 0.9])
    assert np.isnan(auroc(empty, varied))
    assert np.isnan(spearman(constant, varied))
    assert np.isnan(kappa(np.array([1, 1]), np.array([1, 1])))
    assert np.isnan(calibration_error(empty, empty))
    assert np.isnan(bootstrap([], lambda i: 0.0, 10, 0)).all()
    assert np.isnan(bootstrap(["a", "b"], lambda i: float("nan"), 10, 0)).all()


@silent
def test_few_and_constant_values_are_told_apart():
    empty, constant, varied = np.array([]), np.array([0.5, 0.5]), np.array([0.0, 1.0])
    assert spearman(varied, varied) == pytest.approx(1)
    assert np.isnan([spearman(empty, empty), spearman(varied[:1], varied[:1])]).all()
    assert np.isnan([spearman(varied, constant), spearman(constant, varied)]).all()
    assert np.isnan(auroc(varied, empty))
    ones, zeros, both = np.array([1, 1]), np.array([0, 0]), np.array([1, 0])
    assert np.isnan([kappa(empty, empty), kappa(zeros, zeros)]).all()
    assert kappa(ones, both) == kappa(both, ones) == kappa(ones, zeros) == kappa(zeros, ones) == 0
    assert kappa(both, both) == 1
    assert np.isnan(kappa(ones[:1], ones[:1]))
    assert kappa(ones[:1], zeros[:1]) == 0


def test_spearman_depends_only_on_order():
    a = np.array([0.1, 0.2, 0.6, 0.7])
    assert spearman(a, a**3) == pytest.approx(1)
    assert spearman(a, -a) == pytest.approx(-1)
    assert spearman(a, np.array([0.2, 0.1, 0.6, 0.7])) == pytest.approx(1 - 6 * 2 / (4 * 15))


def test_kappa_of_a_table_worked_by_hand():
    # 20 both yes, 15 both no, 5 + 10 different: observed .7, by chance .5*.6 + .5*.4.
    a = np.repeat([1, 1, 0, 0], [20, 5, 10, 15])
    b = np.repeat([1, 0, 1, 0], [20, 5, 10, 15])
    assert kappa(a, b) == pytest.approx((0.7 - 0.5) / 0.5)
    assert kappa(a, a) == 1
    assert kappa(np.array([0, 1]), np.array([1, 0])) == -1


def test_reliability_and_its_error():
    readings = np.array([0.05, 0.05, 0.95, 1.0])
    truth = np.array([0.0, 0.5, 1.0, 0.5])
    low, high = reliability(readings, truth)
    assert (low.low, low.high, low.n, low.reading, low.truth) == (0.0, 0.1, 2, pytest.approx(0.05), 0.25)
    assert (high.low, high.high, high.n, high.reading, high.truth) == (0.9, 1.0, 2, pytest.approx(0.975), 0.75)
    assert calibration_error(readings, truth) == pytest.approx((0.2 + 0.225) / 2)
    assert calibration_error(truth, truth) == 0


def test_threshold_table():
    readings, positive = np.array([0.15, 0.45, 0.75, 0.85]), np.array([False, True, False, True])
    cuts = {cut.threshold: cut for cut in threshold_table(readings, positive)}
    assert tuple(cuts) == THRESHOLDS
    assert (cuts[0.1].precision, cuts[0.1].recall, cuts[0.1].f1) == (0.5, 1.0, pytest.approx(2 / 3))
    assert (cuts[0.4].precision, cuts[0.4].recall) == (pytest.approx(2 / 3), 1.0)
    assert (cuts[0.8].precision, cuts[0.8].recall, cuts[0.8].f1) == (1.0, 0.5, pytest.approx(2 / 3))
    assert np.isnan(cuts[0.9].precision)
    assert (cuts[0.9].recall, cuts[0.9].f1) == (0.0, 0.0)


def test_a_reading_at_the_threshold_counts_as_positive():
    cuts = {cut.threshold: cut for cut in threshold_table(np.array([0.5, 0.2]), np.array([True, False]))}
    assert (cuts[0.5].precision, cuts[0.5].recall, cuts[0.5].f1) == (1, 1, 1)
    assert cuts[0.6].recall == 0


@silent
def test_without_positives_only_what_is_determined_has_a_value():
    cuts = {cut.threshold: cut for cut in threshold_table(np.array([0.5]), np.array([False]))}
    assert (cuts[0.5].precision, cuts[0.5].f1) == (0, 0)
    assert np.isnan([cuts[0.5].recall, cuts[0.6].precision, cuts[0.6].recall, cuts[0.6].f1]).all()


def test_a_bootstrap_is_the_percentiles_of_its_known_resamples():
    drawn: list[list[int]] = []
    values: list[float] = []

    def statistic(indices: np.ndarray) -> float:
        drawn.append(indices.tolist())
        values.append(float("nan") if len(drawn) % 3 == 0 else float(len(drawn)))
        return values[-1]

    interval = bootstrap(["a", "b", "b", "c"], statistic, 100, 0)
    assert len(drawn) == 100
    assert interval == pytest.approx(tuple(np.nanpercentile(values, [2.5, 97.5])))
    assert set().union(*drawn) == {0, 1, 2, 3}
    assert all(len(ids) == 3 + ids.count(1) and ids.count(1) == ids.count(2) for ids in drawn), "three whole clips"
    first, second = (bootstrap(["a", "b", "b", "c"], lambda i: float(i.mean()), 100, seed) for seed in (0, 1))
    assert first != second


def test_bootstrap_intervals_have_their_nominal_coverage():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        values = rng.normal(size=40)
        low, high = bootstrap(range(40), lambda i, values=values: float(values[i].mean()), 300, trial)
        covered += low <= 0 <= high
    assert 0.88 <= covered / 200 <= 0.98


def test_bootstrap_draws_whole_clips():
    """Claims that merely repeat the value of their clip do not narrow the interval."""
    clips, values = np.arange(30), np.random.default_rng(1).normal(size=30)
    by_clip = bootstrap(clips, lambda i: float(values[i].mean()), 500, 0)
    repeated = np.repeat(values, 20)
    assert bootstrap(np.repeat(clips, 20), lambda i: float(repeated[i].mean()), 500, 0) == pytest.approx(by_clip)
    by_claim = bootstrap(range(600), lambda i: float(repeated[i].mean()), 500, 0)
    assert by_claim[1] - by_claim[0] < (by_clip[1] - by_clip[0]) / 3


@pytest.mark.parametrize("reading", [np.nan, np.inf])
def test_a_reading_that_is_not_finite_is_in_no_bin_and_refused(reading: float):
    for figure in (reliability, calibration_error):
        with pytest.raises(ValueError, match="finite"):
            figure(np.array([0.5, reading]), np.array([0.5, 0.5]))
