"""RLER's election, with values worked out by hand.

A thought of two words and think_high=4 gives a transparency of sin²(pi/2) = 1, and no repetition.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from evaluation.election.ballots import read_ballot
from evaluation.election.candidates import Candidate
from evaluation.election.election import Elected, Election, NeedMore, elect
from evaluation.election.rler import Rler, consistency, overlap
from evidence.errors import BadInput
from tests.candidates import candidate

RLER = Rler(think_high=4)


def score(one: Candidate, method: Rler = RLER) -> float:
    return method.score(read_ballot(one))


def weights(*candidates: Candidate, method: Rler = RLER) -> list[float]:
    ballots = [read_ballot(one) for one in candidates]
    return method.weights(ballots, [method.score(ballot) for ballot in ballots])


def test_score_is_the_mean_of_four_parts():
    # s_fs = 2/3
    assert score(candidate("B", [3, 5], confidence=0.8)) == pytest.approx((2 / 3 + 1 + 1 + 0.8) / 4)


def test_without_confidence_it_is_the_mean_of_three():
    assert score(candidate("B", [3, 5])) == pytest.approx((2 / 3 + 1 + 1) / 3)


def test_confidence_may_be_written_in_the_text():
    one = candidate("B", [3, 5])
    written = replace(one, text=one.text + "<confidence>0.8</confidence>")
    assert score(written) == score(candidate("B", [3, 5], confidence=0.8))


def test_invalid_citations_lower_the_score():
    # 16 frames: 16 and 99 are not shown. (2 - 1) / 3, then (2 - 2) / 3
    assert score(candidate("B", [3, 5, 16])) == pytest.approx((1 / 3 + 2) / 3)
    assert score(candidate("B", [3, 5, 16, 99])) == pytest.approx(2 / 3)
    assert score(candidate("B", [3, 5], frames=4)) == pytest.approx(2 / 3)  # (1 - 1) / 2


def test_repetition_lowers_the_score():
    # runs of three words: a b a, b a b, a b a, b a b, of which two repeat
    one = candidate("B", thought="a b a b a b")
    transparency = math.sin(math.pi * 6 / 320) ** 2
    assert score(one, Rler()) == pytest.approx((0 + transparency + 0.5) / 3)


def test_score_of_a_text_without_anything():
    assert score(Candidate("", frames=16)) == pytest.approx((0 + 0 + 1) / 3)


def ballots(*citations: list[int]):
    return [read_ballot(candidate("B", cited)) for cited in citations]


def test_overlap_is_the_jaccard_index():
    assert overlap(*ballots([3, 5], [3, 5])) == 1
    assert overlap(*ballots([3, 5], [5, 7])) == pytest.approx(1 / 3)
    assert overlap(*ballots([3], [])) == 0
    assert overlap(*ballots([], [])) == 0


def test_overlap_of_different_frame_counts_is_that_on_the_coarser_grid():
    sparse = read_ballot(candidate("B", [3], frames=16))
    dense = read_ballot(candidate("B", [6, 7], frames=32))
    assert overlap(sparse, dense) == overlap(dense, sparse) == 1
    assert overlap(sparse, read_ballot(candidate("B", [3], frames=32))) == 0  # frame 1 of 16


def test_consistency_is_the_mean_overlap_with_each_other_supporter():
    assert consistency(ballots([3, 5], [3, 5], [5])) == pytest.approx([0.75, 0.75, 0.5])
    assert consistency(ballots([3, 5])) == [0]


def test_votes_are_scores_weighed_by_consistency():
    first, second = candidate("B", [3, 5]), candidate("B", [5])
    s_first, s_second = (2 / 3 + 2) / 3, (1 / 2 + 2) / 3
    # J = 1/2 for both; a lone supporter keeps half of its vote
    lone = candidate("C", [9, 10])
    assert weights(first, second, lone) == pytest.approx([0.75 * s_first, 0.75 * s_second, 0.5 * s_first])
    method = replace(RLER, uncorroborated=0.2)
    assert weights(first, second, lone, method=method) == pytest.approx([0.6 * s_first, 0.6 * s_second, 0.2 * s_first])


def test_outliers_have_no_vote_and_do_not_count_against_the_others():
    # J = 2/3, 2/3, 2/3 and 0: below half of the median
    voters = [candidate("B", [1, 2])] * 3 + [candidate("B", [9, 10])]
    s = (2 / 3 + 2) / 3
    assert weights(*voters) == pytest.approx([s, s, s, 0])
    assert weights(*voters, method=replace(RLER, outlier=0.0)) == pytest.approx([s * (0.5 + 1 / 3)] * 3 + [s * 0.5])
    assert weights(*voters, method=replace(RLER, outlier_group=5))[3] > 0


def test_three_supporters_may_have_an_outlier():
    # J = 1/2, 1/2 and 0
    voters = [candidate("B", [1]), candidate("B", [1]), candidate("B", [9])]
    assert weights(*voters)[2] == 0
    assert weights(*voters, method=replace(RLER, outlier_group=4))[2] > 0


def test_two_supporters_have_no_outlier():
    assert min(weights(candidate("B", [1]), candidate("B", [9]))) > 0


def test_a_candidate_without_an_answer_has_no_vote():
    assert weights(candidate(None, [1]), candidate("B", [1]))[0] == 0


def three(confidence: float) -> list[Candidate]:
    return [
        candidate("B", [3, 5], confidence=confidence),
        candidate("B", [3, 5], confidence=confidence),
        candidate("C", [9], confidence=0.3),
    ]


def test_a_clear_and_confident_lead_stops_after_three():
    elected = elect(three(0.8) * 2, RLER)
    of_b, of_c = 2 * (2 / 3 + 2 + 0.8) / 4, 0.5 * (1 / 2 + 2 + 0.3) / 4
    assert (elected.answer, elected.winner, elected.used) == ("B", 0, 3)
    assert elected.scores == pytest.approx([(2 / 3 + 2.8) / 4] * 2 + [(1 / 2 + 2.3) / 4])
    assert elected.margin == pytest.approx((of_b - of_c) / (of_b + of_c))


def test_without_confidence_in_the_leader_all_eight_are_drawn():
    assert elect(three(0.4) * 4, RLER).used == 8  # must be above .4
    assert elect(three(0.41) * 4, RLER).used == 3


def test_the_score_stands_for_a_missing_confidence():
    unsure = [replace(one, confidence=None) for one in three(0.0)]
    assert elect(unsure * 4, replace(RLER, stop_confidence=0.88)).used == 3  # S = 8/9
    assert elect(unsure * 4, replace(RLER, stop_confidence=0.89)).used == 8


def test_a_lead_must_exceed_its_threshold():
    split = [candidate("B", [3], confidence=0.9), candidate("C", [9], confidence=0.9)] * 4
    assert elect(split, replace(RLER, stop_least=1)).used == 1  # a single answer leads by 1
    assert elect(split, replace(RLER, stop_least=2)).used == 3  # at two there is no lead
    # Three: B has two whole votes and C half of one.
    assert elect(split[:3], RLER).margin == pytest.approx(1.5 / 2.5)
    assert elect(split, replace(RLER, stop_lead=0.6)).used == 8  # all later leads are smaller
    assert elect(split, replace(RLER, stop_lead=0.59)).used == 3


def test_evidence_outweighs_a_bare_majority():
    voters = [candidate("C"), candidate("B", [3, 5]), candidate("C"), candidate("B", [3, 5]), candidate("C")]
    # B: 2 * 8/9; C: 3 * 2/3 * 1/2
    elected = elect(voters, replace(RLER, stop_least=5))
    assert elected.answer == "B"
    assert elected.margin == pytest.approx((16 / 9 - 1) / (16 / 9 + 1))


def test_a_referee_may_overturn_the_election_once():
    asked: list[Candidate] = []

    def referee(one: Candidate) -> float:
        asked.append(one)
        return 0.1

    voters = three(0.8)
    elected = elect(voters, RLER, referee)
    of_b, of_c = 0.1 * 2 * (2 / 3 + 2.8) / 4, 0.5 * (1 / 2 + 2.3) / 4
    assert asked == [voters[0]]
    assert (elected.answer, elected.winner, elected.used) == ("C", 2, 3)
    assert elected.margin == pytest.approx((of_c - of_b) / (of_c + of_b))


def test_sufficient_evidence_and_a_missing_verdict_change_nothing():
    before = elect(three(0.8), RLER)
    for verdict in (0.5, 1.0, None):
        assert elect(three(0.8), RLER, lambda _, verdict=verdict: verdict) == before
    assert elect([candidate(None)] * 3, RLER, lambda _: pytest.fail("nobody won")).answer is None


def test_frames_are_needed():
    with pytest.raises(BadInput, match=r"f: line 1: has no frames, which the method rler needs"):
        elect([Candidate("x", where="f: line 1")], RLER)


def test_the_decision_before_the_stop():
    election = Election(RLER)
    assert election.decision == NeedMore(most=8)
    decisions = [election.add(one) for one in three(0.8)]
    assert decisions[:2] == [NeedMore(most=7), NeedMore(most=6)]
    assert isinstance(decisions[2], Elected)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("candidates", 0),
        ("candidates", 129),
        ("stop_least", 0),
        ("ngram", 0),
        ("think_low", -1),
        ("think_high", 0),
        ("stop_lead", 1.1),
        ("stop_confidence", math.nan),
        ("uncorroborated", -0.1),
        ("outlier", 1.5),
        ("outlier_group", 2),
        ("sufficient", 2),
    ],
)
def test_ranges(key: str, value: float):
    with pytest.raises(BadInput, match=f"^{key} = "):
        Rler(**{key: value})
