"""Boxes written in any space are converted to pixels of the resized frame; the rest of a completion is unchanged."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence.geometry import convert
from evidence.grammar import DEGENERATE, parse
from evidence.spaces import SPACES, in_pixels, read
from evidence.types import FrameInfo

INFO = FrameInfo("key", (0.0, 1.0), size=(56, 84), original_size=(640, 480), duration=2.0)
# The same box as each policy writes it.
WRITTEN = {
    "resized": "[14,42,42,84]",
    "original": "[160,240,480,480]",
    "thousand": "[250,500,750,1000]",
    "normalised": "[0.25,0.5,0.75,1]",
}


def with_boxes(*boxes: str) -> str:
    claims = "".join(f"<obj>cup</obj>{box}at<t>1.0</t>s" for box in boxes)
    return f"<think>{claims}</think><answer>a</answer>"


def test_every_space_has_an_example() -> None:
    assert set(WRITTEN) == set(SPACES)


@pytest.mark.parametrize("space", SPACES)
def test_a_box_is_the_same_in_every_space(space: str) -> None:
    (claim,) = read(with_boxes(f"<box>{WRITTEN[space]}</box>"), INFO, space).claims
    assert claim.valid
    assert claim.box == (14, 42, 42, 84)


@pytest.mark.parametrize("space", SPACES)
def test_invalid_claims_keep_their_reason(space: str) -> None:
    none, unreadable, degenerate = read(with_boxes("", "<box>[1,2]</box>", "<box>[5,5,5,9]</box>"), INFO, space).claims
    assert (none.box, none.reason) == (None, "no box")
    assert (unreadable.box, unreadable.reason) == (None, "box has 2 numbers")
    assert degenerate.reason == DEGENERATE
    assert degenerate.box == in_pixels((5, 5, 5, 9), INFO, space)


sizes = st.tuples(st.integers(1, 4000), st.integers(1, 4000))
coordinate = st.floats(-100, 5000).map(lambda value: round(value, 3))
boxes = st.tuples(coordinate, coordinate, coordinate, coordinate)


@given(st.lists(boxes, max_size=5), sizes, sizes, st.sampled_from(list(SPACES)))
def test_boxes_written_in_a_space_are_read_back(pixels: list, size: tuple, original: tuple, space: str) -> None:
    info = replace(INFO, size=size, original_size=original)
    written = [convert(box, info.resized_space, SPACES[space](info)) for box in pixels]
    text = with_boxes(*("<box>[{:.12f},{:.12f},{:.12f},{:.12f}]</box>".format(*box) for box in written))
    completion, plain = read(text, info, space), parse(text)
    assert [claim.box for claim in completion.claims] == [pytest.approx(box, abs=1e-6) for box in pixels]
    # Only the boxes differ.
    assert replace(completion, claims=()) == replace(plain, claims=())
    assert [replace(c, box=None) for c in completion.claims] == [replace(c, box=None) for c in plain.claims]


@given(boxes, sizes)
def test_pixels_of_the_resized_frame_stay_exact(box: tuple, size: tuple) -> None:
    assert in_pixels(box, replace(INFO, size=size), "resized") == box
