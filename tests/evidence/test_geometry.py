import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence.geometry import area, clip, convert, coverage, iou, nearest_frame, tiou
from evidence.types import NORMALISED, THOUSAND, FrameInfo

coordinate = st.floats(-50, 150)
boxes = st.tuples(coordinate, coordinate, coordinate, coordinate)


def test_iou_of_known_boxes():
    assert iou((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert iou((0, 0, 10, 10), (10, 0, 20, 10)) == 0
    assert iou((10, 10, 0, 0), (10, 10, 0, 0)) == 0


def test_area_of_known_boxes():
    assert area((2, 3, 5, 7)) == 12
    assert area((0, 0, 0.5, 0.5)) == 0.25
    assert area((0, 0, -3, 4)) == area((0, 0, 3, -4)) == area((0, 0, -3, -4)) == 0


def test_boxes_smaller_than_one_pixel_overlap_as_others_do():
    a, b = (0.0, 0.0, 0.5, 0.5), (0.25, 0.0, 0.75, 0.5)
    assert iou(a, b) == pytest.approx(1 / 3)
    assert coverage(a, b) == pytest.approx(1 / 2)


def test_coverage_is_the_share_of_the_target():
    assert coverage((0, 0, 10, 10), (5, 0, 20, 20)) == pytest.approx(1 / 2)
    assert coverage((5, 5, 5, 9), (0, 0, 20, 20)) == 0, "a target without area"


def test_clipping_of_known_boxes():
    assert clip((-5, -6, 60, 90), (56, 84)) == (0, 0, 56, 84)
    assert clip((0.5, 0.25, 55.5, 83.5), (56, 84)) == (0.5, 0.25, 55.5, 83.5)
    assert clip((60, 90, -5, -6), (56, 84)) == (56, 84, 0, 0)


@given(boxes, boxes)
def test_iou_is_symmetric_and_at_most_coverage(a, b):
    assert iou(a, b) == pytest.approx(iou(b, a))
    assert 0 <= iou(a, b) <= coverage(a, b) + 1e-9 <= 1 + 2e-9


@given(boxes)
def test_clipped_box_is_inside(box):
    x1, y1, x2, y2 = clip(box, (56, 84))
    assert 0 <= min(x1, x2) <= max(x1, x2) <= 56
    assert 0 <= min(y1, y2) <= max(y1, y2) <= 84
    assert area(clip(box, (56, 84))) <= area(box) + 1e-9


INFO = FrameInfo("key", (0.0,), size=(56, 84), original_size=(640, 480), duration=1.0)
# One box in each of the four spaces.
SAME_BOX = {
    NORMALISED: (0.25, 0.5, 0.75, 1),
    THOUSAND: (250, 500, 750, 1000),
    INFO.original_space: (160, 240, 480, 480),
    INFO.resized_space: (14, 42, 42, 84),
}
spaces = st.sampled_from(list(SAME_BOX))


@given(spaces, spaces)
def test_a_box_is_the_same_box_in_every_space(source, target):
    assert convert(SAME_BOX[source], source, target) == SAME_BOX[target]


@given(boxes, spaces, spaces)
def test_conversion_there_and_back_neither_changes_nor_clips(box, source, target):
    assert convert(convert(box, source, target), target, source) == pytest.approx(box)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 10), (5, 15), 1 / 3),
        ((0, 10), (0, 10), 1),
        ((0, 2), (8, 10), 0),
        ((10, 0), (0, 10), 0),
        ((0, 10), (10, 0), 0),
        ((3, 3), (3, 3), 0),
        ((5, 15), (10, 20), 1 / 3),
        ((10, 20), (5, 15), 1 / 3),
        ((2, 3), (1, 9), 1 / 8),
        ((0, 0.5), (0, 0.25), 1 / 2),
        ((6, 2), (0, 10), 0),
        ((0, 10), (6, 2), 0),
        ((9, 1), (8, 2), 0),
    ],
)
def test_tiou_of_known_intervals(a, b, expected):
    assert tiou(a, b) == pytest.approx(expected)


@pytest.mark.parametrize(("time", "index"), [(-1, 0), (1, 0), (1.1, 1), (2, 1), (2.5, 1), (3, 1), (3.1, 2), (9, 2)])
def test_a_tie_goes_to_the_earlier_frame(time, index):
    assert nearest_frame([0, 2, 4], time) == index
    assert nearest_frame([5], time) == 0


@given(st.lists(st.floats(0, 100), min_size=1, max_size=20, unique=True).map(sorted), st.floats(-10, 110))
def test_nearest_frame_is_nearest(times, time):
    chosen = nearest_frame(times, time)
    assert abs(times[chosen] - time) == min(abs(t - time) for t in times)
