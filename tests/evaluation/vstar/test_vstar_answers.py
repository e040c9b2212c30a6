"""How V-STaR's scripts read answers, with their own odd cases."""

from __future__ import annotations

import pytest

from evaluation.vstar.answers import boxes_in, interval_of, times_in, times_in_answer

NAN = float("nan")


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("From 12.5 s to 18 s", [12.5, 18]),
        ("12.5s to 18s", []),  # a number that touches a letter is not word-bounded
        ("12.5 s - 18 s", [12.5, 18]),
        ("1:23 - 1:45", []),  # four numbers
        ("-3 to 5", [3, 5]),  # a sign is not part of a number
        ("<t>3</t>s to <t>12.5</t>s", [3, 12.5]),
        ("at 4", []),
        ("4, 5 and 6", []),
        ("", []),
    ],
)
def test_a_time_is_exactly_two_word_bounded_numbers(text, times):
    assert times_in(text) == times


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("1:23 - 1:45", [83, 105]),
        ("<think>1 2 3</think><answer>0:05 - 0:17</answer>", [5, 17]),
        ("<answer>3 to 4</answer> 5", [3, 4]),
        ("1:02:03", [62, 3]),
        ("1:23 and 11:23", []),  # the second is spoilt by the replacement of the first
        ("none", []),
    ],
)
def test_open_o3_reads_the_answer_and_clocks(text, times):
    assert times_in_answer(text) == times


@pytest.mark.parametrize(
    ("value", "interval", "unparsable"),
    [
        ([3, 5.5], (3, 5.5), False),
        ("[3, 12]", (3, 12), False),  # text that spells a list, as the official script reads it
        ("(2, 9.5)", (2, 9.5), False),
        ("3 to 5", None, True),
        (["3", "5"], None, True),
        ([1, 2, 3], None, True),
        (5, None, True),
        ([NAN, NAN], None, True),  # the official script gives it a temporal IoU of 1
        ([10**400, 5], None, True),
        ("[" * 2000, None, True),
        ([], None, False),
        ("", None, False),
        (None, None, False),
    ],
)
def test_a_recorded_time_is_read_missing_or_unparsable(value, interval, unparsable):
    read, why = interval_of(value)
    assert read == interval
    assert (why is not None) == unparsable


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ('{"12": [1, 2, 3, 4]}', {"12": [1, 2, 3, 4]}),
        ("Sure: {'12': [1, 2, 3, 4]} as asked", {"12": [1, 2, 3, 4]}),
        ('```json\n{"12": [1, 2, 3, 4]}\n``` or {"13": 1}', {"12": [1, 2, 3, 4]}),
        ('[{"12": [1, 2, 3, 4]}, {"13": [5, 6, 7, 8]}]', {"12": [1, 2, 3, 4], "13": [5, 6, 7, 8]}),
        ("[[12, [1, 2, 3, 4]]]", {"12": [1, 2, 3, 4]}),
        ("[1, 2, 3, 4]", [1, 2, 3, 4]),  # stays a list, which scores 0
        ('{"12": [1, 2, 3, 4], "13": [5, 6}', None),
        ("no boxes", None),
    ],
)
def test_boxes_of_a_completion(text, boxes):
    assert boxes_in(text) == boxes


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("3 to 5", "a time that is not [start, end]"),
        ([1, 2, 3], "a time that is not [start, end]"),
        ("[1, 2]" + " " * 995, "a time that is not [start, end]"),  # too long a text is not read
        (["3", "5"], "a time whose ends are not both numbers"),
    ],
)
def test_the_reason_why_a_time_is_unparsable(value, reason):
    assert interval_of(value) == (None, reason)


def test_the_longest_text_of_a_time_is_read():
    assert interval_of("[1, 2" + " " * 994 + "]") == ((1, 2), None)


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("```json\n[1, 2], [3, 4]]\n```", [[1, 2], [3, 4]]),  # an opening bracket was missing
        ("[1, [2, 3]", [1, [2, 3]]),  # a closing one
    ],
)
def test_missing_brackets_are_added_on_their_side(text, boxes):
    assert boxes_in(text) == boxes
