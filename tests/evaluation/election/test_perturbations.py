"""Views of a video: what they show, and that evidence found in them is about the whole frames and the video."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.election.ballots import read_ballot
from evaluation.election.candidates import Candidate
from evaluation.election.perturbations import PerturbationConfig, View, views
from evidence.errors import BadInput
from evidence.types import FrameInfo

INFO = FrameInfo("k", tuple(map(float, range(8))), (40, 20), (80, 40), 8.0)
ALL = PerturbationConfig(brightness=0.2, crop=0.25, shuffle=True, frames=[4])


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (8, 20, 40, 3), np.uint8)


def test_by_default_only_the_brightness_changes():
    assert [view.name for view in views(PerturbationConfig())] == ["as it is", "lighter", "darker"]
    assert views(PerturbationConfig(brightness=0)) == (View(),)
    assert len(views(ALL)) == 1 + 2 + 5 + 1 + 1


def test_no_view_changes_its_input_or_the_size_of_frames(frames):
    before = frames.copy()
    for view in views(ALL):
        shown = view.pixels(frames)
        assert (shown.dtype, shown.shape[1:]) == (np.uint8, frames.shape[1:])
        assert len(shown) == len(view.seen(INFO).times) == len(view.places(8))
        assert not np.shares_memory(shown, frames)
    assert np.array_equal(frames, before)
    assert np.array_equal(View().pixels(frames), frames)


def test_brightness_scales_and_stays_in_range():
    frames = np.array([[[[0, 100, 250]]]], np.uint8)
    assert View(brightness=1.2).pixels(frames).tolist() == [[[[0, 120, 255]]]]
    assert View(brightness=0.8).pixels(frames).tolist() == [[[[0, 80, 200]]]]


def test_a_box_in_a_crop_is_at_the_same_pixels_in_the_whole_frame():
    """A white rectangle, found in each crop that shows all of it, has the place that it has in the frame."""
    frame = np.zeros((1, 200, 400, 3), np.uint8)
    frame[:, 80:120, 160:240] = 255
    crops = [view for view in views(ALL) if "crop" in view.name]
    assert [view.name.removesuffix(" crop") for view in crops] == [
        *("top left", "top right", "bottom left", "bottom right", "centre")
    ]
    for view in crops:
        rows, columns = np.nonzero(view.pixels(frame)[0, :, :, 0] > 127)
        found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert view.in_whole(found, (400, 200)) == pytest.approx((160, 80, 240, 120), abs=1.5)


def test_corners_of_the_crops():
    corners = {view.name: view.in_whole((0, 0, 40, 20), (40, 20)) for view in views(ALL) if "crop" in view.name}
    assert corners["top left crop"] == (0, 0, 30, 15)
    assert corners["bottom right crop"] == (10, 5, 40, 20)
    assert corners["centre crop"] == (5, 2.5, 35, 17.5)


def test_fewer_frames_are_spread_over_the_video():
    assert View(frames=4).places(8) == (0, 2, 5, 7)
    assert View(frames=4).seen(INFO).times == (0.0, 2.0, 5.0, 7.0)
    assert View(frames=99).places(8) == tuple(range(8))


def test_shuffled_frames_keep_their_times(frames):
    view = View(shuffled=True)
    places = view.places(8)
    assert sorted(places) == list(range(8))
    assert places != tuple(range(8))
    assert view.seen(INFO).times == tuple(map(float, places))
    assert all(np.array_equal(shown, frames[place]) for shown, place in zip(view.pixels(frames), places))


def test_frames_cited_in_another_order_are_the_same_frames_of_the_video():
    view = View(shuffled=True)
    places = view.places(8)
    text = f"<keyframes>[{places.index(3)}, {places.index(5)}, 9]</keyframes><answer>B</answer>"
    ballot = read_ballot(Candidate(view.placed(text, 8), frames=8))
    assert ballot.cited == {3, 5}
    assert "9" in view.placed(text, 8)  # an invalid citation stays one
    assert View(brightness=1.2).placed(text, 8) == text


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"brightness": 1.0}, "brightness = 1.0: must be 0 or more, and below 1"),
        ({"crop": -0.1}, "crop = -0.1: must be"),
        ({"frames": [0]}, "frames = [0]: must be numbers of frames, each 1 or more"),
    ],
)
def test_bad_perturbations(values, part):
    with pytest.raises(BadInput) as error:
        PerturbationConfig(**values)
    assert part in str(error.value)
