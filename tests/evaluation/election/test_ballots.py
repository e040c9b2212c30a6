from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.election.ballots import answer_key, read_ballot
from evaluation.election.candidates import Candidate
from tests.candidates import candidate

TAGS = [f"<{slash}{name}>" for name in ("think", "answer", "keyframes", "confidence") for slash in ("", "/")]
PIECES = ["[", "]", ",", "3", "99", "-1", "0.5", "1e9", "B", "(B)", "Correct Option:", " ", "\n", "\x00", "答案", "é"]
HUGE = ["<think>", "<answer>", "<keyframes>[1,", "</answer>", "1,", " ", "B", "<confidence>"]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("B", "(B)"),
        ("B", "[B]"),
        ("B.", " B "),
        ("B", "b"),
        ("B", "From <t>3</t>s to <t>5</t>s\nCorrect Option: B"),
        ("5", "5.0"),
        ("1,000", "1000"),
        ("2 meters", "2.0 meter"),
        ("A red  cup.", "a red cup"),
        ("红色的杯子", "红色的杯子"),
        ("café", "cafe\u0301"),
    ],
)
def test_equal_answers(a: str, b: str):
    assert answer_key(a) == answer_key(b) is not None


@pytest.mark.parametrize(
    ("a", "b"),
    [("B", "C"), ("5", "6"), ("5 m", "5 s"), ("a red cup", "a red cap"), ("B", "B. a cup"), ("Β", "B"), ("5", "five")],
)
def test_different_answers(a: str, b: str):
    assert answer_key(a) != answer_key(b)


@pytest.mark.parametrize("answer", ["", " ", "\n", ".", "Correct Option: "])
def test_blank_answers_have_no_key(answer: str):
    assert answer_key(answer) is None
    ballot = read_ballot(candidate(answer))
    assert (ballot.answer, ballot.key) == (None, None)


def test_what_is_read_from_a_candidate():
    text = "<think>I look</think><keyframes>[3, 5, 16, x]</keyframes><answer> B </answer><confidence>0.7</confidence>"
    ballot = read_ballot(Candidate(text, frames=16))
    assert (ballot.answer, ballot.cited, ballot.confidence) == ("B", frozenset({3, 5}), 0.7)
    assert ballot.completion.think == "I look"
    assert read_ballot(Candidate(text, frames=16, confidence=0.0)).confidence == 0.0
    assert read_ballot(Candidate(text)).cited == frozenset()
    assert read_ballot(Candidate("B")).confidence is None


HOSTILE = {
    "no tags": ("B", None),
    "not closed": ("<answer>B", None),
    "nested": ("<think>x</think><answer><answer>B</answer></answer>", "<answer>B"),
    "answer inside the thought only": ("<think><answer>C</answer></think>", None),
    "two answers": ("<think>x</think><answer>B</answer><answer>C</answer>", "B"),
    "answer before the thought": ("<answer>C</answer><think>x</think><answer>B</answer>", "B"),
    "other script": ("<think>ดู</think><answer>แมว</answer>", "แมว"),
    "right to left": ("<think>x</think><answer>‏قطة</answer>", "‏قطة"),
    "control characters": ("<think>x</think><answer>\x1b[31mB\x00</answer>", "\x1b[31mB\x00"),
    "empty": ("", None),
}


@pytest.mark.parametrize(("text", "answer"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_texts(text: str, answer: str | None):
    assert read_ballot(Candidate(text, frames=16)).answer == answer


@pytest.mark.parametrize("piece", HUGE)
def test_huge_texts_are_read_in_time(piece: str):
    start = time.process_time()
    read_ballot(Candidate(piece * 200_000, frames=16))
    read_ballot(Candidate(f"<answer>{piece * 200_000}</answer>", frames=16))
    assert time.process_time() - start < 5


@given(st.lists(st.sampled_from(TAGS + PIECES), max_size=40).map("".join), st.none() | st.integers(1, 8))
def test_reading_never_raises(text: str, frames: int | None):
    ballot = read_ballot(Candidate(text, frames=frames))
    assert all(0 <= index < (frames or 0) for index in ballot.cited)
    assert (ballot.answer is None) == (ballot.key is None)
