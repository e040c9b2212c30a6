import numpy as np
import pytest

from evidence.errors import RunFailed
from referee.trust.calibration import (
    VERDICTS,
    JudgedClaims,
    calibrate,
    halves,
    known_by_box,
    known_by_raters,
    raters_agree,
    referees_agree,
)
from referee.verification import KINDS, rescaled


def judged(n: int = 800, seed: int = 0, sharper: float = 1.0) -> JudgedClaims:
    """Claims, four per clip, whose labels are drawn from the referee's probabilities before they are sharpened."""
    rng = np.random.default_rng(seed)
    true = {kind: rng.dirichlet([0.6, 0.3, 0.6], n) for kind in KINDS}
    known = []
    for i in range(n):
        levels = [int(rng.choice(3, p=true[kind][i])) for kind in KINDS]
        known.append(known_by_box(*levels, levels[0] / 2, levels[1] / 2, "even" if i % 2 == 0 else "odd"))
    given = {kind: rescaled(true[kind], 1 / sharper) for kind in KINDS}
    return JudgedClaims(tuple(f"clip {i // 4}" for i in range(n)), tuple(known), given)


def test_halves_share_no_clip_and_cover_all_clips():
    clips = [f"clip {i // 3}" for i in range(31)]
    first, second = halves(clips, 0)
    assert {clips[i] for i in first} & {clips[i] for i in second} == set()
    assert sorted([*first, *second]) == list(range(31))
    assert halves(clips, 0)[0].tolist() == first.tolist() != halves(clips, 1)[0].tolist()


def test_calibration_improves_an_overconfident_referee_on_the_other_half():
    temperature, report = calibrate(judged(sharper=3.0), resamples=20, seed=0)
    assert report["fitted_on"]["clips"] == report["reported_on"]["clips"] == 100
    for kind in KINDS:
        assert temperature[kind] == pytest.approx(3.0, rel=0.25)
        verdict = report["verdicts"][kind]
        assert verdict["ece"]["value"] < 0.6 * verdict["ece"]["before"]
        assert verdict["log_loss"]["after"] < verdict["log_loss"]["before"]


def test_the_report_has_every_verdict_with_intervals_around_the_value():
    _, report = calibrate(judged(), resamples=60, seed=0)
    assert tuple(report["verdicts"]) == VERDICTS
    for verdict in report["verdicts"].values():
        for name in ("auroc", "spearman"):
            low, high = verdict[name]["interval"]
            assert low < verdict[name]["value"] < high
            assert verdict[name]["value"] > 0.5
        assert sum(row["n"] for row in verdict["strata"].values()) == report["reported_on"]["claims"]
        assert sum(row["n"] for row in verdict["reliability"]["after"]) == report["reported_on"]["claims"]


def test_readings_that_are_not_finite_are_counted_and_enter_no_figure():
    ours = judged(400)
    broken = {kind: rows.copy() for kind, rows in ours.given.items()}
    broken["relevance"][[3, 50]] = np.nan
    broken["localization"][[50, 51, 200], 1] = np.inf
    with_broken = JudgedClaims(ours.clips, ours.known, broken)
    left = np.setdiff1d(np.arange(400), [3, 50, 51, 200])
    temperature, report = calibrate(with_broken, resamples=20, seed=0)
    same_temperature, same = calibrate(ours.take(left), resamples=20, seed=0)
    assert (report.pop("not_finite"), same.pop("not_finite")) == (4, 0)
    assert (temperature, report) == (same_temperature, same)
    assert report["fitted_on"]["claims"] + report["reported_on"]["claims"] == 396
    agreement = referees_agree(ours, with_broken, resamples=20, seed=0)
    assert (agreement["claims"], agreement["not_finite"]) == (396, 4)
    assert agreement["product"]["kappa"]["value"] == 1


def test_readings_of_which_none_is_finite_are_no_calibration():
    ours = judged(40)
    nothing = {kind: np.full_like(rows, np.nan) for kind, rows in ours.given.items()}
    with pytest.raises(RunFailed, match="40 of 40 claims have readings that are not finite"):
        calibrate(JudgedClaims(ours.clips, ours.known, nothing), resamples=20, seed=0)


def test_shuffled_labels_give_no_agreement():
    ours = judged()
    shuffled = tuple(ours.known[i] for i in np.random.default_rng(1).permutation(len(ours.known)))
    _, report = calibrate(JudgedClaims(ours.clips, shuffled, ours.given), resamples=60, seed=0)
    for verdict in report["verdicts"].values():
        low, high = verdict["spearman"]["interval"]
        assert low < 0 < high


def test_labels_from_boxes():
    known = known_by_box(2, 1, 0.9, 0.5, "exact")
    assert known.labels["relevance"].tolist() == [0, 0, 1]
    assert known.labels["localization"].tolist() == [0, 1, 0]
    assert known.grade == {"relevance": 1.0, "localization": 0.5, "product": 0.5}
    assert known.truth == {"relevance": 0.9, "localization": 0.5, "product": 0.5}


def test_labels_from_raters_who_disagree():
    known = known_by_raters([(2, 2), (2, 0), (1, 1), (2, 1)], "rated")
    assert known.labels["relevance"].tolist() == [0, 0.25, 0.75]
    assert known.labels["localization"].tolist() == [0.25, 0.5, 0.25]
    assert known.grade == known.truth == {"relevance": 0.875, "localization": 0.5, "product": 0.5}


def test_a_referee_agrees_with_itself_and_not_with_a_random_one():
    ours = judged()
    same = referees_agree(ours, ours, resamples=20, seed=0)
    other = referees_agree(ours, JudgedClaims(ours.clips, ours.known, judged(seed=1).given), resamples=50, seed=0)
    for name in VERDICTS:
        assert same[name]["kappa"]["value"] == same[name]["spearman"]["value"] == pytest.approx(1)
        for figure in ("kappa", "spearman"):
            low, high = other[name][figure]["interval"]
            assert low < 0 < high


def test_raters_are_compared_in_pairs_on_the_claims_that_both_rated():
    ratings = [
        {"ann": (2, 2), "bob": (2, 0)},
        {"ann": (0, 0), "bob": (0, 2), "eve": (0, 0)},
        {"ann": (1, 1)},
    ]
    ann_bob, ann_eve, bob_eve = raters_agree(ratings)
    assert (ann_bob["raters"], ann_bob["claims"]) == (["ann", "bob"], 2)
    assert ann_bob["kappa"] == {"relevance": 1.0, "localization": -1.0}
    assert (ann_eve["claims"], bob_eve["claims"]) == (1, 1)
    assert np.isnan(ann_eve["kappa"]["relevance"])
