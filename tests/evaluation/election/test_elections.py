"""What holds for the elections of every method."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.election import METHODS
from evaluation.election.ballots import read_ballot
from evaluation.election.candidates import INPUTS, Candidate
from evaluation.election.election import Elected, Election, Method, elect, tally
from evaluation.election.majority import Majority
from evaluation.election.open_o3 import OpenO3
from evaluation.election.rler import Rler
from evaluation.election.sparse_to_dense import SparseToDense
from evidence.errors import BadInput
from tests.candidates import candidate, methods

ONE_METHOD = st.sampled_from([*methods(), Majority(stop_decided=True), OpenO3(stop_decided=True), Rler(stop_least=1)])


def build(answer: str | None, cited: list[int], thought: str, confidence: float | None, crops: list, log: float):
    return candidate(answer, cited, thought, confidence=confidence, crop_scores=tuple(crops), logprobs=(log, log / 2))


CANDIDATE = st.builds(
    build,
    st.sampled_from(["A", "(A)", "B", "C", "5", "", None]),
    st.lists(st.integers(0, 20), max_size=5),
    st.sampled_from(["", "I look", "a b a b a b", "看 图", "<answer>D</answer>"]),
    st.none() | st.floats(0, 1),
    st.lists(st.sampled_from([0, 1, 2, None]), max_size=12),
    st.floats(-5, 0),
)
CANDIDATES = st.lists(CANDIDATE, max_size=12)


def streamed(candidates: list[Candidate], method: Method) -> Elected:
    election = Election(method)
    for one in candidates:
        election.add(one)
    return election.end()


@given(CANDIDATES, ONE_METHOD)
def test_streaming_equals_batch(candidates: list[Candidate], method: Method):
    whole = elect(candidates, method)
    assert streamed(candidates, method) == whole
    assert elect(candidates[: whole.used], method) == whole


@given(CANDIDATES, ONE_METHOD, st.randoms())
def test_candidates_after_a_stop_do_not_matter(candidates: list[Candidate], method: Method, random):
    elected = elect(candidates, method)
    later = candidates[elected.used :]
    random.shuffle(later)
    assert streamed(candidates[: elected.used] + later, method) == elected
    if later:
        assert elect(candidates[: elected.used] + [candidate("Z")] * 3, method) == elected


@given(CANDIDATES, ONE_METHOD)
def test_an_election_takes_no_more_than_it_uses(candidates: list[Candidate], method: Method):
    rest = iter(candidates)
    assert elect(rest, method).used + len(list(rest)) == len(candidates)


@given(CANDIDATES, ONE_METHOD)
def test_the_winner_gave_the_answer_and_numbers_are_in_range(candidates: list[Candidate], method: Method):
    elected = elect(candidates, method)
    answered = [n for n, one in enumerate(candidates[: elected.used]) if read_ballot(one).key is not None]
    assert (elected.winner in answered) if answered else (elected.answer is elected.winner is None)
    assert len(elected.scores) == len(elected.weights) == elected.used
    assert 0 <= elected.margin <= 1
    assert min(elected.weights, default=0) >= 0
    assert all(elected.weights[n] == 0 for n in range(elected.used) if n not in answered)


@given(st.lists(CANDIDATE, min_size=1, max_size=10), ONE_METHOD)
def test_a_unanimous_set_is_elected(candidates: list[Candidate], method: Method):
    unanimous = [replace(one, text=one.text.partition("<answer>")[0] + "<answer>B</answer>") for one in candidates]
    elected = elect(unanimous, method)
    assert elected.answer == "B"
    assert elected.margin == (1 if any(elected.weights) else 0)


@given(st.lists(CANDIDATE, max_size=8), st.randoms(), st.sampled_from([Rler(), OpenO3(), Majority()]))
def test_votes_do_not_depend_on_the_order(candidates: list[Candidate], random, method: Method):
    def votes(several: list[Candidate]) -> dict:
        ballots = [read_ballot(one) for one in several]
        return tally(ballots, method.weights(ballots, [method.score(ballot) for ballot in ballots])).votes

    before = votes(candidates)
    random.shuffle(candidates)
    assert votes(candidates) == before


@given(st.lists(CANDIDATE, max_size=10), st.sampled_from([Majority, OpenO3]))
def test_stopping_when_decided_does_not_change_the_answer(candidates: list[Candidate], method: type):
    early, whole = elect(candidates, method(stop_decided=True)), elect(candidates, method())
    key = read_ballot(candidate(whole.answer)).key
    assert read_ballot(candidate(early.answer)).key == key
    assert early.used <= whole.used


@pytest.mark.parametrize("method", methods(), ids=METHODS)
def test_of_equal_votes_the_first_answer_wins(method: Method):
    method = replace(method, power=0) if hasattr(method, "power") else method
    for answers in ("BCCB", "CBBC"):
        elected = elect([candidate(answer, [3]) for answer in answers[:2]], method)
        assert (elected.answer, elected.winner, elected.margin) == (answers[0], 0, 0.0)


def test_sums_that_differ_in_the_last_bit_are_equal():
    weights = [0.3, 0.1, 0.2]
    assert weights[1] + weights[2] > weights[0]
    votes = tally([read_ballot(candidate(answer)) for answer in "CBB"], weights)
    assert (votes.leader, votes.margin) == (read_ballot(candidate("C")).key, 0)


@pytest.mark.parametrize("method", methods(), ids=METHODS)
def test_no_candidates_elect_nothing(method: Method):
    assert elect([], method) == Elected(None, None, (), (), 0, 0.0)


@pytest.mark.parametrize(("name", "missing"), [(m.NAME, i) for m in methods() for i in INPUTS])
def test_a_missing_input_is_named(name: str, missing: str):
    method = METHODS[name]()
    without = replace(candidate("B"), **{missing: None})
    if missing not in method.INPUTS:
        assert elect([without], method).answer == "B"
        return
    with pytest.raises(BadInput, match=f"has no {missing}, which the method {name} needs"):
        elect([without], method)


def test_the_winner_is_the_supporter_with_the_largest_vote():
    elected = elect([candidate("(B)"), candidate("B", [3, 5]), candidate("B", [3, 5])], Rler())
    assert (elected.answer, elected.winner) == ("B", 1)


def test_only_rler_has_a_referee_check():
    for method in methods():
        if isinstance(method, Rler):
            continue
        with pytest.raises(ValueError, match=f"{method.NAME} has no referee check"):
            elect([candidate("B")], method, lambda _: 1.0)


def test_frames_are_asked_for_by_sparse_to_dense_alone():
    for method in methods():
        asked = Election(method).decision.frames
        assert asked == (32 if isinstance(method, SparseToDense) else None)
