import numpy as np
import pytest

from evidence.drawing import CLAIM_COLOURS, MAGENTA, OUTSIDE, Marked, crop, draw_box, enlarged, picture


def scene(height: int = 56, width: int = 84) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, (height, width, 3), np.uint8)


def test_outline_lies_on_the_box_and_the_frame_is_untouched():
    frame = scene()
    before = frame.copy()
    drawn = draw_box(frame, (10, 20, 30, 40))
    marked = (drawn == MAGENTA).all(axis=2)
    ys, xs = np.nonzero(marked)
    assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (10, 20, 30, 40)
    assert marked.sum() == 2 * 20 + 2 * 18
    assert (drawn[21:39, 11:29] == frame[21:39, 11:29]).all()
    assert (frame == before).all()


def test_outline_grows_with_the_frame_and_stays_inside():
    drawn = draw_box(scene(560, 560), (-50, 100, 900, 300))
    marked = (drawn == MAGENTA).all(axis=2)
    assert marked[:, 5].sum() == 2 * 5
    assert marked[200, :].sum() == 2 * 5


def test_crop_puts_the_box_at_the_same_place_even_at_the_border():
    frame = np.zeros((56, 84, 3), np.uint8)
    frame[0:20, 0:20] = 250
    cropped = crop(frame, (0, 0, 20, 20), 0.5, (40, 40))
    assert cropped.shape == (40, 40, 3)
    assert (cropped[12:28, 12:28] == 250).all()
    assert (cropped[:8] == OUTSIDE).all()
    assert (cropped[:, :8] == OUTSIDE).all()
    assert (cropped[32:, 12:28] == 0).all()


def test_unscaled_crop_inside_the_frame_equals_its_pixels():
    frame = scene()
    assert (crop(frame, (20, 16, 48, 44), 0.0, (28, 28)) == frame[16:44, 20:48]).all()


def test_padding_only_the_cropped_part_equals_padding_the_whole_frame():
    frame = scene(112, 112)
    wide = np.pad(frame, ((40, 40), (40, 40), (0, 0)), constant_values=OUTSIDE)
    box = (5.0, 60.0, 33.0, 100.0)
    moved = tuple(v + 40 for v in box)
    assert (crop(frame, box, 0.25, (56, 56)) == crop(wide, moved, 0.25, (56, 56))).all()


def test_read_only_frames_are_accepted():
    frame = scene()
    frame.flags.writeable = False
    draw_box(frame, (1, 1, 9, 9))
    crop(frame, (1, 1, 9, 9), 0.25, (28, 28))


def test_a_box_outside_the_frame_cannot_be_cropped():
    with pytest.raises(ValueError, match="no area"):
        crop(scene(), (90, 0, 99, 9), 0.25, (28, 28))


def test_a_picture_for_people_shows_every_box_in_its_colour_and_keeps_its_frame():
    frame = scene()
    before = frame.copy()
    marks = [Marked((10, 20, 30, 40), CLAIM_COLOURS[0], "1"), Marked((70, 50, 95, 70), CLAIM_COLOURS[1], "12")]
    drawn = picture(frame, marks, scale=4)
    assert drawn.shape == (4 * 56, 4 * 84, 3)
    assert (frame == before).all()
    for mark in marks:
        marked = (drawn == mark.colour).all(axis=2)
        ys, xs = np.nonzero(marked)
        x1, y1, x2, y2 = (4 * value for value in mark.box)
        assert (xs.max() + 1, ys.max() + 1) == (min(x2, 336), min(y2, 224))
        assert (xs.min(), ys.min()) == pytest.approx((x1, y1), abs=40)  # a label may begin before its box, at a border
    assert (drawn[85:150, 45:110] == np.kron(frame, np.ones((4, 4, 1), np.uint8))[85:150, 45:110]).mean() > 0.9
    assert (picture(frame, ()) == frame).all()


def test_a_box_beyond_the_frame_and_its_label_do_not_fail():
    for box in ((-500, -500, -400, -400), (9e9, 0, 9e9, 1), (0, 0, 0, 0), (30, 40, 10, 20)):
        picture(scene(), [Marked(box, CLAIM_COLOURS[0], "100")], scale=3)


def test_small_frames_are_enlarged_by_a_whole_number_and_their_boxes_with_them():
    small = np.zeros((56, 84, 3), np.uint8)
    drawn = enlarged(small, [Marked((10, 20, 30, 40), CLAIM_COLOURS[0])])
    assert drawn.shape == (280, 420, 3)
    ys, xs = np.nonzero(drawn.any(axis=2))
    assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (50, 100, 150, 200)
    assert enlarged(np.zeros((240, 300, 3), np.uint8), []).shape == (240, 300, 3)
