import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence.answers import intervals
from evidence.grammar import parse
from evidence.numbers import plain_intervals, quantity, read_time

PIECES = [
    "$",
    "€",
    "-",
    "+",
    "1",
    "12",
    "1,000",
    "/",
    "\\frac{1}{2}",
    " ",
    "%",
    "cm",
    "to",
    "and",
    "between ",
    "[",
    "]",
    ",",
]
PIECES += ["5_0", "0.5e1", "１", "½", "\n", "9" * 20, ".", ":", "s", "seconds"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("From <t>2.0</t> seconds to <t>6.0</t> seconds", [(2.0, 6.0)]),
        ("between <t>2.0</t>s and <t>6.0</t>s", [(2.0, 6.0)]),
        ("Between <t>2.0</t> sec. and <t>1:06</t>", [(2.0, 66.0)]),
        ("at <t>2.0</t>s and <t>6.0</t>s", []),
        ("<t>2.0 sec</t> — <t>6.0 seconds</t>", [(2.0, 6.0)]),
        ("between 2 s and 6 seconds", [(2.0, 6.0)]),
        ("it happens at 2 and 6", []),
        ("2, 6 things", []),
        ("[2, 6] things", [(2.0, 6.0)]),
        ("(2 s, 6 s)", [(2.0, 6.0)]),
        ("2, 6", [(2.0, 6.0)]),
        (" 2.5 s, 6 s. ", [(2.5, 6.0)]),
        ("2, 6, 9", []),
        ("3 to 5x", []),
        ("from 6 to 2", [(6.0, 2.0)]),
        ("２ to ６", []),
        ("5_0 to 6_0", []),
        ("From 2 to 6 minutes", [(120.0, 360.0)]),
        ("[2, 6] min", [(120.0, 360.0)]),
        ("2-6 hours", [(7200.0, 21600.0)]),
        ("58 s to 2 min.", [(58.0, 120.0)]),
        ("1:02 - 1:08 min", [(62.0, 68.0)]),
        ("1:02 to 1:30 h", [(3720.0, 5400.0)]),
        ("2 to 6 min\n7 to 9 min", [(120.0, 360.0), (420.0, 540.0)]),
        ("1 minute to 1 minute 10 seconds", []),
        ("1 minute 5 seconds to 70 seconds", []),
        ("2 to 6 ms", []),
        ("2024-11-26", []),
        ("1-2-3", []),
        ("1 - 2 - 3", []),
        ("2 to 6.5.7", []),
        ("1,000 to 2,000", []),
        ("5 to 10%", []),
        ("5 to 10 percent", []),
        ("[0.1, 0.5] %", []),
        ("- 3 to 5, the dog", [(3.0, 5.0)]),
        ("3-5 people, seen from 10 to 12 s", [(10.0, 12.0), (3.0, 5.0)]),
        ("3-5 people, seen at 0:10 to 0:12", [(10.0, 12.0), (3.0, 5.0)]),
    ],
)
def test_intervals_are_read_alike_with_and_without_tags(text: str, expected: list[tuple[float, float]]) -> None:
    assert intervals(text) == expected


def test_a_claim_reads_intervals_as_an_answer_does() -> None:
    for words in ("<t>2.0</t> seconds to <t>6.0</t> seconds", "between <t>2.0</t>s and <t>6.0</t>s"):
        (claim,) = parse(f"<think><obj>a</obj><box>[1,2,3,4]</box>{words}</think><answer>b</answer>").claims
        assert (claim.time, claim.until) == (2.0, 6.0)
    moments = parse("<think><obj>a</obj><box>[1,2,3,4]</box>at<t>2</t>s and <t>6</t>s</think>").claims
    assert [(claim.time, claim.until) for claim in moments] == [(2.0, None)]


@pytest.mark.parametrize("text", ["3 s", "3.0 sec.", "3 SECONDS", " 3second "])
def test_the_unit_of_a_time_may_be_written_out(text: str) -> None:
    assert read_time(text) == (3.0, None, None)


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("3.5 meters", 3.5, "meter"),
        ("12 cm.", 12, "cm"),
        ("45%", 45, "%"),
        ("45 %", 45, "%"),
        ("$12", 12, "$"),
        ("-$1,200.50", -1200.5, "$"),
        ("12 €", 12, "€"),
        ("1/2", 0.5, ""),
        ("1 1/2 cups", 1.5, "cup"),
        ("-\\frac{1}{2}", -0.5, ""),
        ("$\\dfrac{3}{4}$", 0.75, ""),
        ("+7", 7, ""),
        ("\N{MINUS SIGN}3", -3, ""),
        ("1,234,567.5", 1234567.5, ""),
        ("1234567890123", 1234567890123, ""),
        ("5 km/h", 5, "km/h"),
        ("5米", 5, "米"),
        ("-2.", -2, ""),
        ("45 percent", 45, "%"),
        ("12 Dollars", 12, "$"),
        ("3 feet", 3, "foot"),
        ("5 inches", 5, "inch"),
        ("5 M", 5, "M"),
        ("5 KM", 5, "km"),
    ],
)
def test_plain_quantities(text: str, value: float, unit: str) -> None:
    assert quantity(text) == (value, unit)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "five",
            "１２",
            "½",
            "5_0",
            "0.5e1",
            "nan",
            "inf",
            "1,5",
            "12,34",
            "1.2.3",
            "1/0",
            "5 or 6",
            "5 to",
            "--5",
        ),
        *("5 bn", "5 mn", "5 lakh", "5 crore", "5 hundredths", "5 squared"),
        *("3 million", "3万", "5 × 2", "about 5", "1:30", "$5 cm", "5 very long unit words", "9" * 16),
    ],
)
def test_whatever_is_not_plainly_one_number_is_none(text: str) -> None:
    assert quantity(text) is None


@given(st.lists(st.sampled_from(PIECES)).map("".join) | st.text())
def test_any_text_can_be_tried(text: str) -> None:
    read = quantity(text)
    assert read is None or abs(read.value) < 1e16
    assert all(0 <= end < 3600e9 for pair in plain_intervals(text) for end in pair)


@pytest.mark.parametrize(
    "piece", ["-" + " " * 50, "1 ", "1/", "$", "between ", "between 3 and ", "[1 ", "1,", "cm ", "1 - "]
)
def test_quantities_and_intervals_take_linear_time(piece: str) -> None:
    def seconds(size: int) -> float:
        text = piece * (size // len(piece)) + " " * size
        start = time.process_time()
        for read in (quantity, plain_intervals, read_time):
            read(text)
            read("-" + " " * size + "x")
            read("1, 2" + " " * size + "x")
        return time.process_time() - start

    # Growing sizes let a quadratic reader fail on a short text instead of after hours.
    for size in (2**10, 2**14, 2**17):
        assert seconds(size) < 5
