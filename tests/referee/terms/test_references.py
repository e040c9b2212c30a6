"""References are read where their meaning is plain, and the others are found by scoring them against themselves."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from views import answered, sample, view

from evidence.types import Sample
from referee.terms.answers import accuracy, choice, closeness, exact, numeric, reference_of
from referee.terms.choices import right_choices
from referee.terms.references import unscorable
from referee.terms.rouge import MOST_WORDS, rouge

OPTIONS = ("A. a plate", "B. a cup")


@pytest.mark.parametrize(
    ("reference", "options", "right", "wrong"),
    [
        ("B. a cup", OPTIONS, "B", "A"),
        ("B: a cup", ("A: a plate", "B: a cup"), "(B)", "A"),
        ("b", OPTIONS, "B.", "A"),
        ("(B)", OPTIONS, "B", "A"),
        ("A cup.", OPTIONS, "B", "A"),
        ("B. a cup", (), "B", "A"),
        ("b", (), "B", "A"),
        ("b) a cup", ("a) a plate", "b) a cup"), "b", "B"),
        ("a cup", ("a plate", "a cup"), "B", "A"),
        ("a cup", ("a plate", "a cup"), "a cup", "a plate"),
        ("B. a cup", OPTIONS, "B. a cup", "A. a plate"),
        ("B", OPTIONS, "B", "B. a cup"),
    ],
)
def test_the_option_that_a_reference_means(reference: str, options: tuple[str, ...], right: str, wrong: str) -> None:
    assert (choice(right, reference, options), choice(wrong, reference, options)) == (1, 0)
    assert accuracy(answered(sample("multiple choice", reference, options=options), right, wrong)) == [1, 0]


@pytest.mark.parametrize(
    ("reference", "options", "right"),
    [
        ("B", ("A. C", "B. A", "C. B"), {"B"}),  # a label, although it is also the text of an option
        ("B", ("A. B", "B. A"), {"B"}),
        ("B", ("C", "A", "B"), {"B"}),
        ("4", ("3", "4"), {"4", "B"}),  # no label here
        ("2", ("1. x", "2. y"), {"2"}),
        ("2. y", ("1. x", "2. y"), {"2. y", "2"}),
        ("y", ("(3) x", "(2) y"), {"y", "2"}),
        ("C", ("A. x", "C. y"), {"C"}),
        ("B", ("A. x", "C. y"), set()),
        ("B. x", ("B. x", "A. y"), {"B. x", "B"}),
        ("y", ("A. x", "y"), {"y"}),
        ("B - y", ("A - x", "B - y"), {"B - y", "B"}),
        ("Option B", ("A. x", "B. y"), {"Option B", "B"}),
        ("option b: y", ("Option A: x", "Option B: y"), {"option b: y", "B"}),
        ("(B).", ("A. x", "B. y"), {"(B)", "B"}),
        ("Option B", (), {"Option B", "B"}),
        ("AC", ("A. x", "B. y", "C. z"), {"AC"}),
        ("A, C", ("A. x", "B. y", "C. z"), {"A, C"}),
        ("A and C", ("A. x", "B. y", "C. z"), {"A and C"}),
        ("AD", ("A. x", "B. y", "C. z"), set()),
        ("AA", ("A. x", "B. y", "C. z"), set()),
        ("J. Roe", ("J. Doe", "J. Roe"), {"J. Roe", "B"}),
        ("2.5 m", ("1.5 m", "2.5 m"), {"2.5 m", "B"}),
        ("2:30", ("1:30", "2:30"), {"2:30", "B"}),
        ("B", ("A.M.", "P.M."), {"B"}),
    ],
)
def test_the_labels_of_options_are_those_they_are_written_with(
    reference: str, options: tuple[str, ...], right: set[str]
) -> None:
    assert right_choices(reference, options) == right


def test_an_accent_may_be_a_character_of_its_own() -> None:
    assert exact("cafe\u0301", "caf\u00e9") == 1
    assert choice("A", "cafe\u0301", ("A. caf\u00e9", "B. the\u0301")) == 1


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("3.5", "3.5 meters", 1),
        ("3.5 meters", "3.5 meters", 1),
        ("3.5 feet", "3.5 meters", 0),
        ("45", "45%", 1),
        ("12", "$12", 1),
        ("0.5", "1/2", 1),
        ("1/2", "0.5", 1),
        ("0.5", "\\frac{1}{2}", 1),
        ("12500", "12,500", 1),
        ("15", "1,5", 0),
        ("-3", "\N{MINUS SIGN}3", 1),
        ("５", "5", 0),
        ("5_0", "50", 0),
        ("0.5e1", "5", 0),
    ],
)
def test_numbers_with_units_signs_and_fractions(answer: str, reference: str, expected: float) -> None:
    assert numeric(answer, reference) == expected
    assert closeness(answer, reference) == expected


def test_the_answer_of_a_reference_in_prose_is_what_its_tags_hold() -> None:
    of = sample("numerical", "So we have <answer> 5 </answer>.")
    assert reference_of(of) == "5"
    assert accuracy(answered(of, "5", "6")) == [1, 0]
    grounded = sample("temporal grounding", "It is <answer>3 to 5</answer>")
    assert accuracy(answered(grounded, "[3, 5]")) == [1]


def test_an_empty_reference_makes_no_answer_right() -> None:
    for task in ("boolean", "OCR", "free-form", "numerical", "multiple choice"):
        for nothing in ("", " ", None):
            of = sample(task, nothing)  # type: ignore[arg-type]
            assert accuracy(answered(of, "", "a")) == [0, 0]
            assert unscorable(of) == "has no answer"


@pytest.mark.parametrize(
    "of",
    [
        *(sample("numerical", text) for text in ("3.5 meters", "45%", "$12", "1/2", "\\frac{1}{2}", "0")),
        sample("regression", "12 cm"),
        *(sample("multiple choice", text, options=OPTIONS) for text in ("B", "b", "(B)", "B. a cup", "a cup")),
        sample("multiple choice", "B"),
        sample("temporal QA (MCQ)", "B\n[2.0, 6.0]", options=OPTIONS),
        sample("temporal QA", "[2.0, 6.0]"),
        sample("temporal grounding", "any text", spans=((2.0, 6.0),)),
        sample("temporal grounding", "", spans=((0.00001, 100000.0),)),
        sample("temporal grounding", "from 3 to 5 seconds"),
        sample("visual QA", "<box>[20,20,60,80]</box>"),
        sample("visual QA", "<box>[20,20,60,80]</box>", image_size=(200, 100)),
        sample("boolean", "True"),
        sample("OCR", "北京欢迎你"),
        *(
            sample("free-form", text)
            for text in ("Yes", "一个红色的杯子", "красная чашка", "كوب أحمر", "빨간 컵", "ถ้วยสีแดง")
        ),
    ],
    ids=lambda of: f"{of.task}: {of.answer}",
)
def test_references_that_an_answer_satisfies(of: Sample) -> None:
    assert unscorable(of) is None


@pytest.mark.parametrize("reference", ["B\nin the middle", "B\n[6.0, 2.0]", "B\n[2.0, 2.0]"])
def test_a_temporal_choice_needs_an_interval_in_order(reference: str) -> None:
    of = sample("temporal QA (MCQ)", reference, options=OPTIONS)
    assert (unscorable(of) or "").endswith("holds no interval in order")


@given(st.text("aB7é杯̀ ̈?!.½ⅷ\n", max_size=6))
def test_free_form_references_earn_something_if_they_have_a_word(text: str) -> None:
    of = sample("free-form", text)
    assert (unscorable(of) is None) == (rouge(reference_of(of), reference_of(of)) > 0)


def test_rouge_compares_a_bounded_number_of_words() -> None:
    text = " ".join(f"w{number}" for number in range(MOST_WORDS))
    assert rouge(text + " and more", text) == pytest.approx(1)


@pytest.mark.parametrize(
    ("task", "reference", "fields", "reason"),
    [
        ("numerical", "five", {}, "is not a plain number"),
        ("regression", "3 or 4", {}, "is not a plain number"),
        ("multiple choice", "E", {"options": OPTIONS}, "names none of its options"),
        ("multiple choice", "A. a cup", {"options": OPTIONS}, "names none of its options"),
        ("temporal QA (MCQ)", "E\n[2.0, 6.0]", {"options": OPTIONS}, "names none of its options"),
        ("temporal grounding", "in the middle", {}, "holds no interval in order"),
        ("temporal QA", "[6.0, 2.0]", {}, "holds no interval in order"),
        ("temporal QA", "", {"spans": ((6.0, 2.0),)}, "holds no interval in order"),
        ("visual QA", "the cup", {}, "holds no box with area"),
        ("visual QA", "<box>[60,20,20,80]</box>", {}, "holds no box with area"),
        ("free-form", "?!", {}, "holds no word"),
    ],
)
def test_references_that_nothing_satisfies(task: str, reference: str, fields: dict[str, Any], reason: str) -> None:
    of = sample(task, reference, **fields)
    assert (unscorable(of) or "").endswith(reason)
    assert accuracy(view(of, f"<think>a</think><answer>{reference}</answer>")) == [0]
