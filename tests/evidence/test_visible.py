"""Text of unknown origin that is shown to people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence.visible import one_line, visible

ESCAPE, RIGHT_TO_LEFT, ZERO_WIDTH_SPACE = "\x1b", "\u202e", "\u200b"


@pytest.mark.parametrize(
    "hidden", [ESCAPE, RIGHT_TO_LEFT, ZERO_WIDTH_SPACE, "\ud800", "\x00", "\r", "\u2028", "\ue000"]
)
def test_hidden_characters_are_replaced(hidden):
    assert visible(f"a{hidden}b") == "a\ufffdb"


def test_text_in_any_script_stays_as_it_is():
    for text in ("plain", '<b> & "quoted"', "แมว 猫 кошка", "👩\u200d👧", "line\nline", "नि\u200dज़"):
        assert visible(text) == text


def test_one_line():
    assert one_line("a\n  b\tc", 20) == "a b c"
    assert one_line("x" * 30, 10) == "x" * 9 + "…"
    assert one_line(f"{ESCAPE}[31mred", 20) == "\ufffd[31mred"


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Z", "C"]), max_size=60), st.integers(1, 40))
def test_any_text_can_be_printed(text, most):
    visible(text).encode()
    line = one_line(text, most)
    assert len(line) <= most
    assert len(line.splitlines()) <= 1
