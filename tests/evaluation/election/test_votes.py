"""Majority, Open-o3-Video's voting, self-certainty and sparse-to-dense frames, with values worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from evaluation.election.candidates import Candidate
from evaluation.election.election import Elected, Election, NeedMore, elect
from evaluation.election.majority import Majority
from evaluation.election.open_o3 import OpenO3
from evaluation.election.self_certainty import SelfCertainty, certainty
from evaluation.election.sparse_to_dense import SparseToDense
from evidence.errors import BadInput
from tests.candidates import candidate


def voters(answers: str, **fields: object) -> list[Candidate]:
    """One candidate for each letter; `-` has no answer."""
    return [candidate(None if letter == "-" else letter, **fields) for letter in answers]


@pytest.mark.parametrize(
    ("answers", "answer", "margin"),
    [("BBC", "B", 1 / 3), ("CBB", "B", 1 / 3), ("CB", "C", 0), ("BC", "B", 0), ("--B", "B", 1), ("BCCBD", "B", 0)],
)
def test_majority(answers: str, answer: str, margin: float):
    elected = elect(voters(answers), Majority())
    assert (elected.answer, elected.margin) == (answer, pytest.approx(margin))
    assert elected.used == len(answers)
    assert elected.scores == tuple(float(letter != "-") for letter in answers)


def test_majority_takes_as_many_as_it_is_told():
    assert elect(voters("BCCCCCCCC"), Majority()).used == 8
    assert elect(voters("BCC"), Majority(candidates=1)).answer == "B"


def test_without_any_answer_none_is_elected():
    assert elect(voters("---"), Majority()) == Elected(None, None, (0, 0, 0), (0, 0, 0), 3, 0.0)


@pytest.mark.parametrize(("answers", "used"), [("BBBBCCCC", 4), ("CBBBBCCC", 8), ("BBBCCCC-", 8), ("BB--BCCC", 5)])
def test_majority_may_stop_once_it_is_decided(answers: str, used: int):
    # Once B leads by as many as are left, others can only tie, and B was first.
    elected = elect(voters(answers), Majority(stop_decided=True))
    assert elected.used == used
    assert elected.answer == elect(voters(answers), Majority()).answer


@pytest.mark.parametrize(
    ("crops", "vote"),
    [((2,), 1.0), ((1,), 0.6), ((0,), 0.2), ((None,), 0.2), ((2, 1, 0, None), 0.5), ((), 0.2), ((2,) * 11, 0.2)],
)
def test_open_o3_vote(crops: tuple[int | None, ...], vote: float):
    assert elect([candidate("B", crop_scores=crops)], OpenO3()).scores == pytest.approx((vote,))


def test_open_o3_counts_ten_crops_whole():
    assert elect([candidate("B", crop_scores=(2,) * 10)], OpenO3()).scores == (1.0,)


def test_open_o3_without_a_thought():
    elected = elect([Candidate("<answer>B</answer>", crop_scores=(2,))], OpenO3())
    assert (elected.scores, elected.answer, elected.margin) == ((0.0,), "B", 0.0)


def test_open_o3_elects_the_largest_sum():
    elected = elect([*voters("CCC", crop_scores=(0,)), candidate("B", crop_scores=(2, 2, 1))], OpenO3())
    assert elected.answer == "B"  # (1 + 1 + .6) / 3 against .6
    assert elected.margin == pytest.approx((2.6 / 3 - 0.6) / (2.6 / 3 + 0.6))
    assert elected.winner == 3


def test_open_o3_may_stop_once_it_is_decided():
    several = voters("BBBBBBBB", crop_scores=(2,))
    assert elect(several, OpenO3()).used == 8
    assert elect(several, OpenO3(stop_decided=True)).used == 4
    weak = voters("BBBBBBBB", crop_scores=(0,))  # .2 each, and each of the others could have 1
    assert elect(weak, OpenO3(stop_decided=True)).used == 7


def test_certainty_of_whole_distributions_is_their_divergence_from_uniform():
    uniform, sure = (math.log(0.25),) * 4, (math.log(0.5), math.log(0.25), math.log(0.25))
    assert certainty((uniform, uniform)) == pytest.approx(0)
    assert certainty((sure,)) == pytest.approx(-(math.log(0.5) + 2 * math.log(0.25)) / 3 - math.log(3))
    assert certainty((sure,)) == pytest.approx(sum(math.log(1 / 3 / p) for p in (0.5, 0.25, 0.25)) / 3)


def test_certainty_of_drawn_tokens_is_their_mean():
    assert certainty((-0.1, -0.3)) == pytest.approx(-0.2)


def certain(answers: str) -> list[Candidate]:
    """Candidates from the most to the least certain."""
    return [replace(one, logprobs=(-0.1 * n,)) for n, one in enumerate(voters(answers), 1)]


@pytest.mark.parametrize(
    ("answers", "power", "answer", "votes"),
    [
        ("ABB-", 0.5, "B", [2, math.sqrt(3), math.sqrt(2), 0]),
        ("ABB-", 2, "A", [16, 9, 4, 0]),
        ("ABB-", 0, "B", [1, 1, 1, 0]),
        ("-ABB", 1, "A", [0, 3, 2, 1]),
    ],
)
def test_borda_votes(answers: str, power: float, answer: str, votes: list[float]):
    elected = elect(certain(answers), SelfCertainty(power=power))
    assert (elected.answer, elected.weights) == (answer, pytest.approx(votes))


def test_rank_does_not_depend_on_the_order_of_arrival():
    assert elect(certain("ABB")[::-1], SelfCertainty(power=2)).weights == pytest.approx([1, 4, 9])


def test_log_probabilities_must_be_recorded_alike():
    second = candidate("B", logprobs=((-0.1, -2.0),), where="f: line 2")
    with pytest.raises(BadInput, match=r"f: line 2: logprobs: has a list of 2 for each token, and f: line 1 has a num"):
        elect([candidate("B", where="f: line 1"), second], SelfCertainty())


def shown(answers: str, frames: int) -> list[Candidate]:
    return voters(answers, frames=frames)


def test_agreement_about_few_frames_ends_it():
    elected = elect(shown("BBBBB", 32) + shown("CCCCC", 64), SparseToDense())
    assert (elected.answer, elected.used, elected.margin) == ("B", 5, 1.0)


def test_the_last_round_decides_by_majority():
    elected = elect(shown("BBBBC", 32) + shown("BBBCC", 64) + shown("CCCBB", 128) + shown("B", 128), SparseToDense())
    assert (elected.answer, elected.used, elected.margin) == ("C", 15, pytest.approx(1 / 5))
    assert elected.weights == (0,) * 10 + (1,) * 5


def test_it_tells_how_many_frames_to_show():
    election = Election(SparseToDense(per_round=2))
    assert election.decision == NeedMore(32, most=2)
    assert [election.add(one) for one in shown("BC", 32)] == [NeedMore(32, most=1), NeedMore(64, most=2)]
    assert [election.add(one) for one in shown("BC", 64)] == [NeedMore(64, most=1), NeedMore(128, most=2)]
    assert election.add(shown("C", 128)[0]) == NeedMore(128, most=1)
    assert isinstance(election.add(shown("B", 128)[0]), Elected)
    assert election.end().answer == "B"  # a tie; B was given first, in the first round


def test_a_missing_answer_is_no_agreement():
    assert elect(shown("BBBB-", 32), SparseToDense()).used == 5
    assert Election(SparseToDense(per_round=2)).add(shown("-", 32)[0]) == NeedMore(32, most=1)
    election = Election(SparseToDense(per_round=2))
    assert [election.add(one) for one in shown("--", 32)][-1] == NeedMore(64, most=2)


def test_part_of_a_round_may_be_enough():
    assert elect(shown("BBBBC", 32) + shown("C", 64), SparseToDense(agreement=0.8)).used == 5
    assert elect(shown("BBBBC", 32) + shown("C", 64), SparseToDense(agreement=0.81)).used == 6


def test_a_round_may_be_longer_than_needed():
    elected = elect(shown("BCBBBB", 32), SparseToDense())
    assert (elected.answer, elected.used, elected.margin) == ("B", 6, pytest.approx(4 / 6))


def test_frames_must_not_decrease():
    with pytest.raises(BadInput, match="frames = 16: must be 32 or more"):
        elect(shown("B", 32) + shown("B", 16), SparseToDense())


@pytest.mark.parametrize(
    ("method", "key", "value"),
    [
        (Majority, "candidates", 0),
        (Majority, "candidates", 1001),
        (OpenO3, "candidates", 0),
        (OpenO3, "most_crops", 0),
        (OpenO3, "partly", 1.5),
        (OpenO3, "irrelevant", -0.1),
        (SelfCertainty, "candidates", 1001),
        (SelfCertainty, "power", -1),
        (SelfCertainty, "power", 33),
        (SparseToDense, "per_round", 0),
        (SparseToDense, "growth", 1),
        (SparseToDense, "most_frames", 31),
        (SparseToDense, "agreement", 0.0),
    ],
)
def test_ranges(method: type, key: str, value: float):
    with pytest.raises(BadInput, match=f"^{key} = "):
        method(**{key: value})
