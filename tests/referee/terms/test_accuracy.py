import pytest
from rouge_score.rouge_scorer import RougeScorer
from views import answered, sample, view

from evidence.errors import BadInput
from referee.terms.answers import (
    accuracy,
    choice,
    closeness,
    exact,
    mean_relative_accuracy,
    numeric,
    ocr,
    stated_choice,
)
from referee.terms.rouge import rouge


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("B", 1), ("B.", 1), ("(B)", 1), ("[B]", 1), (" B\n", 1), ("b", 0), ("A", 0), ("B. a cup", 0), ("(B]", 0)],
)
def test_the_letter_of_an_option(answer: str, expected: float):
    assert choice(answer, "B") == expected


@pytest.mark.parametrize("truth", ["(B)", "B.", "[B]"])
def test_the_reference_may_be_written_in_the_same_ways(truth: str):
    assert choice("B", truth) == 1
    assert choice("A", truth) == 0


def test_a_reference_without_a_letter_makes_no_answer_right():
    assert choice("", "") == choice(" ", "") == 0
    assert stated_choice("Correct Option: ", "\n[3.0, 9.0]") == 0


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("From <t>3</t>s to <t>9</t>s\nCorrect Option: B", 1),
        ("Correct Option: (B)", 1),
        ("Correct Option: A", 0),
        ("B", 0),
        ("Correct Option: A Correct Option: B", 0),
    ],
)
def test_the_letter_of_a_temporal_choice_is_the_one_stated(answer: str, expected: float):
    assert stated_choice(answer, "B\n[3.0, 9.0]") == expected


def test_exact_ignores_case_whitespace_and_a_final_full_stop():
    assert exact("  Top\nLEFT. ", "top left") == 1
    assert exact("top left!", "top left") == 0


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("42", "42", 1),
        ("3.141", "3.14", 1),
        ("3.15", "3.14", 0),
        ("5.0", "5", 1),
        ("1,000", "1000", 1),
        ("-2.", "-2", 1),
        ("five", "5", 0),
        ("nan", "5", 0),
        ("5 apples", "5", 0),
    ],
)
def test_numbers_are_compared_to_two_decimals(answer: str, reference: str, expected: float):
    assert numeric(answer, reference) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("100", 1.0), ("95", 1.0), ("90", 0.9), ("110", 0.9), ("51", 0.1), ("50", 0.1), ("49", 0.0), ("x", 0.0)],
)
def test_mean_relative_accuracy_of_a_hundred(answer: str, expected: float):
    assert mean_relative_accuracy(answer, "100") == pytest.approx(expected)
    assert mean_relative_accuracy("1.1", "1") == pytest.approx(0.9)  # off by a tenth, plus a rounding error


def test_only_zero_matches_a_reference_of_zero():
    assert mean_relative_accuracy("0.0", "0") == closeness("0", "0") == 1
    assert mean_relative_accuracy("0.001", "0") == closeness("0.001", "0") == 0


def test_closeness():
    assert closeness("90", "100") == pytest.approx(0.9)
    assert closeness("300", "100") == 0
    assert closeness("-4", "-5") == pytest.approx(0.8)


def test_ocr_is_one_minus_the_word_error_rate():
    assert ocr("the quick fox", "the quick fox") == 1
    assert ocr("the quick dog", "the quick\nfox jumps") == pytest.approx(0.5)  # one wrong and one missing of four words
    assert ocr("a b c d e f", "x") == 0
    assert ocr("", "x") == 0


def test_rouge_by_hand():
    # Two of three words and one of two pairs are shared; the longest common subsequence has two words.
    assert rouge("a cup falls", "a cup breaks") == pytest.approx((2 / 3 + 1 / 2 + 2 / 3) / 3)
    assert rouge("walking cups", "walks cup") == 1
    assert rouge("cup", "cup") == pytest.approx(2 / 3)
    assert rouge("", "cup") == rouge("!!!", "cup") == 0


def test_rouge_equals_the_librarys():
    library = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    answer, reference = "He quickly puts 2 cups onto the table, and leaves.", "The man put the cups on a table, leaving"
    scores = library.score(reference, answer).values()
    assert rouge(answer, reference) == pytest.approx(sum(score.fmeasure for score in scores) / 3)


@pytest.mark.parametrize(
    ("task", "truth", "right", "wrong"),
    [
        ("General video QA MCQ", "B", "(B)", "A"),
        ("General video QA Free-form", "a red cup", "a red cup", "dogs"),
        ("temporal-spatial free-form QA", "a red cup", "a red cup", "dogs"),
        ("temporal QA", "[2.0, 6.0]", "From <t>2</t>s to <t>6</t>s", "From <t>6</t>s to <t>2</t>s"),
        ("temporal QA (MCQ)", "B\n[2.0, 6.0]", "Correct Option: B", "B"),
        ("visual QA", "<obj>cup</obj><box>[20,20,60,80]</box>", "<box>[10,10,30,40]</box>", "<box>[20,20,60,80]</box>"),
        ("multiple choice", "B", "B", "a red cup"),
        ("numerical", "5", "5.0", "6"),
        ("OCR", "EXIT", "EXIT", "exit"),
        ("regression", "5", "5", "50"),
        ("free-form", "a red cup", "a red cup", "dogs"),
        ("boolean", "yes", "Yes.", "no"),
        ("open-ended", "a red cup", "a red cup", "dogs"),
        ("temporal grounding", '{"time": [2.0, 6.0]}', '{"time": [2, 6]}', '{"time": [7, 8]}'),
        ("a task of one's own", "a red cup", "a red cup", "dogs"),
    ],
)
def test_the_task_decides_the_rule(task: str, truth: str, right: str, wrong: str):
    group = answered(sample(task, truth), right, wrong)
    best, worst = accuracy(group)
    assert best == pytest.approx(1)
    assert worst < 0.3
    assert accuracy(view(group.sample, right)) == [0]  # no tags, no answer


def test_a_sample_with_options_is_a_multiple_choice():
    assert accuracy(answered(sample("mine", "B", options=("A. a", "B. b")), "B.", "A")) == [1, 0]


@pytest.mark.parametrize("task", ["boolean", "OCR", "multiple choice", "numerical", "temporal QA", "free-form"])
def test_no_answer_is_right_where_the_sample_has_none(task: str):
    assert accuracy(answered(sample(task, ""), "", "left")) == [0.0, 0.0]


def test_options_of_accuracy():
    group = answered(sample(), "A red cup.", "a red")
    assert accuracy(group, free_form="exact") == [1, 0]
    assert accuracy(group)[1] == pytest.approx((4 / 5 + 2 / 3 + 4 / 5) / 3)
    assert accuracy(answered(sample("regression", "100"), "93"), regression="closeness") == [pytest.approx(0.93)]


def test_a_box_cannot_be_judged_without_the_frame_size():
    of = sample("visual QA", "<box>[20,20,60,80]</box>")
    assert accuracy(view(of, "<think></think><answer></answer>", frames=None)) == [0]
    with pytest.raises(BadInput, match=r"sample .*: this reward needs frame_size, \[width, height\]"):
        accuracy(view(of, "<think></think><answer><box>[20,20,60,80]</box></answer>", frames=None))
