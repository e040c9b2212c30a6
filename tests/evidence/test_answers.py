import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence.answers import boxes, cited_frames, confidence, intervals, times

PIECES = ["<t>", "</t>", "<box>", "</box>", "<keyframes>", "</keyframes>", "<confidence>", "</confidence>"]
PIECES += ["[", "]", ",", " ", "3", "12.5", "1:02", "-", "to", "s", "x", "9" * 12, "é", "\n"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("From <t>3.0</t>s to <t>9.5</t>s", [(3.0, 9.5)]),
        ("<t>3.0</t> to <t>9.5</t> and <t>12-14</t>", [(3.0, 9.5), (12.0, 14.0)]),
        ("From <t>1:02</t>s to <t>1:05.5</t>s", [(62.0, 65.5)]),
        ("From <t>9.5</t>s to <t>3.0</t>s", [(9.5, 3.0)]),
        ("<t>3.0</t>s, then 4 to 5", []),
        ("[12.0, 20.5]", [(12.0, 20.5)]),
        ('{"time": [12.0, 20.5]}', [(12.0, 20.5)]),
        ("[(1, 2.5), (4.0, 6)]", [(1.0, 2.5), (4.0, 6.0)]),
        ("The event happens in 13.4 - 28.1 seconds", [(13.4, 28.1)]),
        ("from 3 s to 5 seconds", [(3.0, 5.0)]),
        ("-3 to 5", []),
        ("B2 to 5", []),
        ("3 5", []),
        ("", []),
    ],
)
def test_intervals(text: str, expected: list[tuple[float, float]]):
    assert intervals(text) == expected


def test_times_are_moments_or_intervals():
    assert times("<t>2</t>s, <t>3</t>s to <t>5</t>s, <t>soon</t>, <t>7.5s</t>") == ([2.0, 7.5], [(3.0, 5.0)])


def test_only_readable_boxes_are_returned():
    assert boxes("<obj>a</obj><box>[1,2,3,4]</box> <box>5, 6, 7, 8</box><box>[1,2]</box><box>[9,9,9,9]") == [
        (1, 2, 3, 4),
        (5, 6, 7, 8),
    ]


@pytest.mark.parametrize(
    ("inside", "valid", "invalid"),
    [
        ("[3, 5]", (3, 5), 0),
        ("5,3", (5, 3), 0),
        ("[0, 7, 8]", (0, 7), 1),  # eight frames: 0 to 7
        ("[3, 3, 3]", (3,), 0),
        ("[-1, 2.5, x, 4]", (4,), 3),
        ("[2,,]", (2,), 2),
        ("[]", (), 0),
        ("[" + "9" * 5000 + "]", (), 1),  # more digits than int() takes
        ("[３]", (), 1),
    ],
)
def test_cited_frames(inside: str, valid: tuple[int, ...], invalid: int):
    assert cited_frames(f"<think>a</think><keyframes>{inside}</keyframes><answer>b</answer>", 8) == (valid, invalid)


@pytest.mark.parametrize("text", ["", "[3, 5]", "<keyframes>[3]", "[3]</keyframes>"])
def test_a_text_without_closed_keyframes_cites_nothing(text: str):
    assert cited_frames(text, 8) is None


@pytest.mark.parametrize(
    ("inside", "expected"),
    [("0.8", 0.8), (" 1.0 ", 1.0), ("0", 0.0), (".5", 0.5), ("1.2", None), ("80%", None), ("-0.1", None), ("", None)],
)
def test_confidence(inside: str, expected: float | None):
    assert confidence(f"a<confidence>{inside}</confidence>") == expected


@given(st.lists(st.sampled_from(PIECES)).map("".join) | st.text())
def test_any_text_can_be_read(text: str):
    assert all(math.isfinite(number) for numbers in (*intervals(text), *boxes(text)) for number in numbers)
    cited = cited_frames(text, 4)
    assert cited is None or (set(cited.valid) <= set(range(4)) and len(set(cited.valid)) == len(cited.valid))
    assert 0 <= (confidence(text) or 0) <= 1


@pytest.mark.parametrize("piece", ["3 ", "3" + " " * 50, "3 to ", "<keyframes>", "<confidence> ", "1:02 s", "<t>3 to "])
def test_linear_on_a_long_text(piece: str):
    def seconds(size: int) -> float:
        text = piece * (size // len(piece)) + " " * size
        start = time.process_time()
        for read in (intervals, boxes, confidence):
            read(text)
        cited_frames(text, 4)
        return time.process_time() - start

    # As in test_grammar.py: growing sizes let a quadratic reader fail on a short text instead of after hours.
    for size in (2**10, 2**14, 2**17, 2**20):
        assert seconds(size) < 20
