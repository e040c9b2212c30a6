"""Which labels stand at which shown frame, and where in it."""

from __future__ import annotations

from dataclasses import replace

from evidence.types import FrameInfo, KeyFrame, Sample
from orchestration.showing.labels import ANSWER, LabelledBox, labels_of

INFO = FrameInfo("key", (0.0, 1.0, 2.0), (56, 28), (640, 320), 3.0)
SAMPLE = Sample("a", "s", "t", "What?", "It.", video_path="v.mp4")
CUP, DOG = (0.25, 0.5, 0.75, 1.0), (0.0, 0.0, 0.5, 0.25)


def test_a_label_stands_at_the_nearest_frame_unless_that_is_another_moment() -> None:
    keys = (KeyFrame("near", 1.2), KeyFrame("between", 1.5), KeyFrame("last", 2.25), KeyFrame("after", 9.0))
    items = {key.idx: {"cup": (CUP,)} for key in keys}
    labels = labels_of(replace(SAMPLE, key_frames=keys, key_items=items), INFO)
    assert labels.key_frames == ((), (keys[0],), (keys[2],))
    assert labels.not_shown == (keys[1], keys[3])
    assert [len(boxes) for boxes in labels.boxes] == [0, 1, 1]


def test_boxes_are_in_pixels_of_the_frame_and_a_phrase_keeps_its_number() -> None:
    keys = KeyFrame("0", 0.0), KeyFrame("1", 1.0)
    items = {"0": {"dog": (DOG,)}, "1": {"cup": (CUP,), "dog": (DOG, CUP)}}
    first, second, _ = labels_of(replace(SAMPLE, key_frames=keys, key_items=items), INFO).boxes
    dog, cup = (0, 0, 28, 7), (14, 14, 42, 28)
    assert first == (LabelledBox("dog", 1, dog),)
    assert second == (LabelledBox("cup", 2, cup), LabelledBox("dog", 1, dog), LabelledBox("dog", 1, cup))


def test_the_boxes_in_the_answer_of_a_visual_qa_are_in_pixels_of_the_original() -> None:
    answer = "<obj>cup</obj><box>[160, 80, 480, 320]</box>"
    image = replace(SAMPLE, task="visual QA", answer=answer, video_path=None, image_path="a.png")
    info = replace(INFO, times=(0.0,))
    expected = ((LabelledBox(ANSWER, 1, (14, 7, 42, 28)),),)
    assert labels_of(image, info).boxes == expected, "the size of the file"
    half = answer.replace("[160, 80, 480, 320]", "[80, 40, 240, 160]")
    assert labels_of(replace(image, answer=half, image_size=(320, 160)), info).boxes == expected, "the size in the data"
    assert labels_of(replace(image, task="numerical"), info).boxes == ((),)
