import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from referee.calibration import auroc, referee_report

few = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=12).map(np.array)


@given(few, few)
def test_auroc_is_the_share_of_pairs_in_order_with_ties_half(positives, negatives):
    pairs = [(p > n) + 0.5 * (p == n) for p in positives for n in negatives]
    assert auroc(positives, negatives) == pytest.approx(np.mean(pairs))


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
