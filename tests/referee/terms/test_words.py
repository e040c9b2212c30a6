"""Words by script: English as published, and every script against itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from views import sample, thought

from referee.terms.answers import ocr
from referee.terms.rler import anti_repetition, think_transparency
from referee.terms.rouge import rouge
from referee.terms.words import words

LIBRARY = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
ENGLISH = st.text("abcdeinrsty ABC.,'-_123\n", max_size=60)


@given(ENGLISH, ENGLISH)
def test_rouge_of_texts_in_ascii_is_the_published_one(answer: str, reference: str) -> None:
    scores = LIBRARY.score(reference, answer).values()
    assert rouge(answer, reference) == sum(score.fmeasure for score in scores) / 3


@pytest.mark.parametrize(
    "text",
    [
        "一个红色的杯子",
        "赤いコップです",
        "빨간 컵 입니다",
        "красная чашка",
        "κόκκινο φλιτζάνι",
        "כוס אדומה",
        "كوب أحمر",
        "ถ้วยสีแดง",
        "लाल कप है",
        "Über Äpfel öfter",
        "café crème",
    ],
)
def test_a_text_in_any_script_agrees_with_itself(text: str) -> None:
    assert rouge(text, text) == pytest.approx(1)
    assert rouge("a red cup", text) == 0
    assert ocr(text, text) == 1


def test_rouge_counts_shared_characters_where_there_are_no_spaces() -> None:
    # Three of four characters and two of three pairs are shared.
    assert rouge("红色杯子", "红色杯碗") == pytest.approx((3 / 4 + 2 / 3 + 3 / 4) / 3)
    assert rouge("红色，杯子。", "红色杯子") == 1
    assert rouge("It’s a cup", "it's a cup") == 1
    assert rouge("a red 杯子", "a RED 杯子") == 1


def test_ocr_counts_characters_where_there_are_no_spaces() -> None:
    assert ocr("北京欢迎", "北京欢迎你") == pytest.approx(0.8)
    assert ocr("the quick dog", "the quick fox") == pytest.approx(2 / 3)


def test_an_accent_is_the_same_as_one_character_and_as_two() -> None:
    composed, decomposed = "caf\u00e9 cr\u00e8me", "cafe\u0301 cre\u0300me"
    assert words(decomposed) == words(composed) == ["caf\u00e9", "cr\u00e8me"]
    assert ocr(decomposed, composed) == ocr(composed, decomposed) == 1
    assert rouge(decomposed, composed) == pytest.approx(1)


def test_words_of_a_thought() -> None:
    assert words("I see, twice: 3.5 m — there") == ["I", "see,", "twice:", "3.5", "m", "—", "there"]
    assert words("我看见，一个iPhone 手机。") == ["我", "看", "见，", "一", "个", "iPhone", "手", "机。"]
    assert words("") == words(" \n\u3000") == []


def test_rler_counts_words_in_any_script() -> None:
    chinese = "".join(chr(0x4E00 + i) for i in range(160))
    english = " ".join(f"w{i}" for i in range(160))
    assert think_transparency(thought(sample(), chinese, english)) == [pytest.approx(1)] * 2
    assert anti_repetition(thought(sample(), "红色杯红色杯", "red cup is red cup is")) == pytest.approx([-1 / 4] * 2)
