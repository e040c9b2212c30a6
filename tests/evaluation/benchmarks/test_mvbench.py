"""MVBench: how its rows are read and its questions asked."""

from __future__ import annotations

import re

import pytest
from scoring import benchmark, placed

from evaluation.benchmark import Completion
from evaluation.choices import score_letter

MVBENCH = {"video": "a.mp4", "question": "How many?", "candidates": ["3", "4", "2"], "answer": "4"}


def mvbench_question(row, file="action_count.json"):
    return next(iter(benchmark("mvbench").read(placed([row], file)[0])))


def test_a_question_of_mvbench():
    question = mvbench_question(MVBENCH | {"start": 1, "end": 2.5}, "action_count.json.gz")
    assert (question.id, question.video, question.part) == ("action_count/0", "a.mp4", (1, 2.5))
    assert mvbench_question(MVBENCH | {"task_type": "Action Count"}).groups == {"task": ("Action Count",)}
    assert benchmark("mvbench").ask(question) == (
        "How many?\n(A) 3\n(B) 4\n(C) 2\nAnswer with the letter of the right option in brackets only, such as (A)."
    )
    assert mvbench_question(MVBENCH | {"start": 1}).part is mvbench_question(MVBENCH | {"end": 1}).part is None


@pytest.mark.parametrize(
    ("candidates", "answer", "letter"),
    [
        (["B", "A"], "A", "B"),  # letters as options: the text goes before the label
        (["a cup", "a plate"], "a plate", "B"),
        (["a cup", "a plate"], "A", "A"),
        (["a cup", "a plate"], "(B) a plate", "B"),
    ],
)
def test_the_answer_of_mvbench_is_an_options_text_or_its_letter(candidates, answer, letter):
    assert mvbench_question(MVBENCH | {"candidates": candidates, "answer": answer}).answer == letter


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"candidates": "3 or 4"}, "the key 'candidates' must be a list of texts, not '3 or 4'"),
        ({"answer": "five"}, "the answer 'five' names none of the 3 options"),
        ({"start": 2, "end": 2}, "its part of the video ends before it begins: start 2, end 2"),
    ],
)
def test_what_is_wrong_with_a_row_of_mvbench_is_named(changes, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        mvbench_question(MVBENCH | changes)


def test_the_read_word_of_mvbench_is_recorded():
    question = mvbench_question(MVBENCH)
    official = benchmark("mvbench").score(question, Completion("(B). four"), True)
    assert (official.score, official.parsed) == (1, "(b).")
    assert benchmark("mvbench").score(question, Completion("... four"), True).outcome == "unparsable"
    assert benchmark("mvbench").score(question, Completion("<answer>(B)"), False).outcome == "unparsable"


def test_a_scored_letter_is_recorded():
    scored = score_letter(mvbench_question(MVBENCH), "A")
    assert (scored.score, scored.parsed) == (0, "A")
