"""Records of held-out clips: the reward, and the measures that the reward does not use."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from evaluation.heldout import ClipRecord, claim_iou, labelled_boxes, record
from evidence.grammar import parse
from evidence.types import FrameInfo, KeyFrame, Sample, Verdict
from referee.reward.ser import Ser

INFO = FrameInfo("key", (0.0, 1.0, 2.0, 3.0), (100, 50), (200, 100), 4.0)
# The ball is visible at the first two labelled moments, the cup at all four.
SAMPLE = Sample(
    id="clip-0",
    source="shapes",
    task="temporal-spatial free-form QA",
    question="Where is the red ball at 1.0 s?",
    answer="top left",
    video_path="a.mp4",
    key_frames=tuple(KeyFrame(str(i), float(i)) for i in range(4)),
    key_items={
        **{str(i): {"red ball": ((0.1, 0.2, 0.3, 0.6),), "cup": ((0.5, 0.5, 0.9, 0.9),)} for i in range(2)},
        **{str(i): {"cup": ((0.5, 0.5, 0.9, 0.9),)} for i in range(2, 4)},
    },
)
BALL = "[10,10,30,30]"
GOOD = Verdict(1.0, 1.0)


def text(*claims: tuple[str, str, float], answer: str = "top left") -> str:
    written = " ".join(f"<obj>{name}</obj><box>{box}</box>at<t>{time}</t>s" for name, box, time in claims)
    return f"<think>I see {written}</think><answer>{answer}</answer>"


def recorded(completion: str, *verdicts: Verdict | None) -> ClipRecord:
    return record(SAMPLE, INFO, completion, parse(completion), list(verdicts), Ser())


def test_labelled_boxes_are_the_asked_objects_in_pixels_of_the_resized_frame() -> None:
    assert labelled_boxes(SAMPLE, INFO, 1.0) == ((10, 10, 30, 30),)
    assert labelled_boxes(SAMPLE, INFO, 3.0) == ()


@pytest.mark.parametrize(("time", "visible"), [(-5.0, True), (1.4, True), (1.6, False), (99.0, False)])
def test_a_time_means_the_shown_frame_nearest_to_it(time: float, visible: bool) -> None:
    assert bool(labelled_boxes(SAMPLE, INFO, time)) == visible
    # A claim is judged on a shown frame, even if the label of another moment is nearer to its time.
    sparse = replace(INFO, times=(1.0, 3.0))
    assert labelled_boxes(SAMPLE, sparse, 1.8) == ((10, 10, 30, 30),)


def test_a_perfect_completion() -> None:
    good = text(("red ball", BALL, 0.0), ("red ball", BALL, 1.0))
    # Two claims with the same box one sampling step apart are copies and count once, while m_min is two.
    assert recorded(good, GOOD, GOOD) == ClipRecord(
        clip="clip-0",
        text=good,
        reward=0.5,
        accuracy=1.0,
        iou=1.0,
        claims=2,
        valid_claims=2,
        box_area=pytest.approx(400 / 5000),
        claim_ious=(1.0, 1.0),
        frame_size=INFO.size,
        frame_times=INFO.times,
    )


def test_iou_depends_on_the_box_and_not_on_the_name_or_the_verdict() -> None:
    """A deceived referee must not raise the IoU."""
    deceived = recorded(text(("red ball", "[50,25,90,45]", 1.0)), GOOD)
    assert deceived.reward == 0.5
    assert deceived.iou == 0.0
    strict = recorded(text(("a thing", BALL, 1.0)), Verdict(0.0, 0.0))
    assert strict.reward == 0.0
    assert strict.iou == 1.0


def test_a_right_box_where_the_object_is_absent_earns_no_iou() -> None:
    clip = recorded(text(("red ball", BALL, 1.0), ("red ball", BALL, 3.0)), GOOD, GOOD)
    assert clip.claim_ious == (1.0, 0.0)
    assert clip.iou == 0.5


def test_a_half_right_box() -> None:
    (claim,) = parse(text(("red ball", "[10,10,30,20]", 1.0))).claims
    assert claim_iou(claim, SAMPLE, INFO) == pytest.approx(0.5)


def test_an_invalid_claim_is_counted_and_has_no_iou() -> None:
    clip = recorded(text(("red ball", "[10,10]", 1.0), ("red ball", BALL, 1.0)), GOOD)
    assert (clip.claims, clip.valid_claims) == (2, 1)
    assert clip.claim_ious == (1.0,)


UNLABELLED = (replace(SAMPLE, key_frames=(), key_items={}), replace(SAMPLE, question="What happens at 1.0 s?"))


@pytest.mark.parametrize("sample", UNLABELLED, ids=["no labels", "none of the object asked about"])
def test_without_labels_there_is_no_iou(sample: Sample) -> None:
    written = text(("red ball", BALL, 1.0))
    clip = record(sample, INFO, written, parse(written), [GOOD], Ser())
    assert clip.reward == 0.5
    assert math.isnan(clip.iou)
    assert [math.isnan(value) for value in clip.claim_ious] == [True]
    silent = record(sample, INFO, "top left", parse("top left"), [], Ser())
    assert math.isnan(silent.iou)
    assert silent.claim_ious == ()


def test_without_claims_the_area_is_nan_and_nothing_is_earned() -> None:
    clip = recorded("the answer is top left")
    assert (clip.reward, clip.accuracy, clip.iou, clip.claims) == (0.0, 0.0, 0.0, 0)
    assert math.isnan(clip.box_area)


def test_a_missing_verdict_gives_a_nan_reward() -> None:
    clip = recorded(text(("red ball", BALL, 1.0)), None)
    assert math.isnan(clip.reward)
    assert clip.iou == 1.0


def test_evidence_does_not_make_a_wrong_answer_right() -> None:
    assert recorded(text(("red ball", BALL, 1.0), answer="top right"), GOOD).accuracy == 0.0
