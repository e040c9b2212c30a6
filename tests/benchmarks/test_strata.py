import pytest

from benchmarks.strata import referee_report


def test_report_by_stratum():
    labels = [2, 2, 1, 0, 0, 0]
    scores = [0.9, 0.6, 0.5, 0.7, 0.1, 0.2]
    report = referee_report(labels, scores, ["exact", "exact", "near", "hard", "easy", "easy"])
    assert report["auroc"] == pytest.approx(5 / 6, abs=1e-4)
    assert (report["positives"], report["negatives"]) == (2, 3)
    strata = report["strata"]
    assert strata["hard"]["auroc_negatives"] == 0.5
    assert strata["easy"]["auroc_negatives"] == 1
    assert strata["near"]["auroc_positives"] is None
    assert strata["near"]["labels"] == [0, 1, 0]
    assert sum(row["n"] for row in strata.values()) == 6


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="2 labels"):
        referee_report([0, 2], [0.1], ["a", "b"])
