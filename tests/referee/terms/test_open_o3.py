import math
from dataclasses import replace
from typing import Any

import pytest
from views import FRAMES, answered, sample, thought, view

from evidence.errors import BadInput
from evidence.types import KeyFrame, Sample
from referee.terms.open_o3 import (
    ans_acc,
    ans_tiou,
    ans_viou,
    open_o3_format,
    thk_spatial,
    thk_temporal_point,
    thk_temporal_segment,
)

ALL = (ans_acc, ans_tiou, ans_viou, open_o3_format, thk_temporal_segment, thk_temporal_point, thk_spatial)

# Normalised boxes; in the resized frame of 100x50 pixels the cup is at 10,10 to 30,40.
CUP, CUP_PIXELS = (0.1, 0.2, 0.3, 0.8), "[10,10,30,40]"
SPATIO_TEMPORAL = sample(
    "temporal-spatial free-form QA",
    "a red cup",
    key_frames=(KeyFrame("3", 2.0), KeyFrame("9", 6.0)),
    key_items={"3": {"red cup": (CUP,)}, "9": {"red cup": ((0.5, 0.2, 0.7, 0.8),), "dog": ((0.0, 0.0, 0.2, 0.4),)}},
)
TEMPORAL = sample("temporal QA", "[2.0, 6.0]", spans=((2.0, 6.0),))
TEMPORAL_MCQ = sample("temporal QA (MCQ)", "B\n[2.0, 6.0]", spans=((2.0, 6.0),))
VISUAL = sample("visual QA", "<obj>red cup</obj><box>[20,20,60,80]</box>", image_size=(200, 100))
GENERAL_MCQ, GENERAL = sample("General video QA MCQ", "B"), sample("General video QA Free-form")


def claim(box: str = CUP_PIXELS, time: str = "2.0", phrase: str = "red cup") -> str:
    return f"<obj>{phrase}</obj><box>{box}</box>at<t>{time}</t>s"


def completion(think: str, answer: str) -> str:
    return f"<think>{think}</think><answer>{answer}</answer>"


@pytest.mark.parametrize(
    ("of", "text", "highest"),
    [
        (SPATIO_TEMPORAL, completion(claim(), "a red cup"), 4),
        (
            TEMPORAL_MCQ,
            completion(claim() + claim(time="6.0"), "From <t>2.0</t>s to <t>6.0</t>s\nCorrect Option: B"),
            4,
        ),
        (TEMPORAL, completion(claim() + claim(time="6.0"), "From <t>2.0</t>s to <t>6.0</t>s"), 3),
        (VISUAL, completion(claim(time="0.0"), f"<obj>red cup</obj><box>{CUP_PIXELS}</box>"), 3),
        (GENERAL_MCQ, completion("I see it.", "B"), 2),
        (GENERAL, completion("I see it.", "a red cup"), 2),
    ],
    ids=lambda value: value.task if isinstance(value, Sample) else "",
)
def test_a_perfect_completion_earns_the_highest_reward_of_its_task(of: Sample, text: str, highest: float):
    values = [term(view(of, text))[0] for term in ALL]
    assert sum(values) == pytest.approx(highest)
    assert all(value == 0 or value == pytest.approx(1) for value in values)
    assert sum(term(view(of, ""))[0] for term in ALL) == 0


def test_answer_accuracy_covers_only_answers_in_words():
    assert ans_acc(answered(GENERAL_MCQ, "(B)", "A")) == [1, 0]
    assert ans_acc(answered(TEMPORAL_MCQ, "Correct Option: B.", "B")) == [1, 0]
    assert ans_acc(answered(SPATIO_TEMPORAL, "a red dog")) == [pytest.approx((2 / 3 + 1 / 2 + 2 / 3) / 3)]
    assert ans_acc(answered(TEMPORAL, "From <t>2</t>s to <t>6</t>s")) == [0]
    assert ans_acc(answered(VISUAL, VISUAL.answer)) == [0]
    assert ans_acc(answered(sample("numerical", "5"), "5", "6")) == [1, 0]


def test_answered_interval():
    answers = (
        "From <t>4</t>s to <t>8</t>s",
        "From <t>7</t>s to <t>8</t>s",
        "From <t>0:02</t>s to <t>0:06</t>s",
        "soon",
    )
    assert ans_tiou(answered(TEMPORAL, *answers)) == pytest.approx([2 / 6, 0, 1, 0])
    assert ans_tiou(answered(TEMPORAL_MCQ, answers[0])) == pytest.approx([2 / 6])
    assert ans_tiou(answered(GENERAL, answers[0])) == [0]


def test_a_reversed_interval_earns_nothing():
    assert ans_tiou(answered(TEMPORAL, "From <t>6</t>s to <t>2</t>s")) == [0]


def test_the_true_span_may_be_given_by_the_reference_answer_alone():
    assert ans_tiou(answered(sample("temporal QA (MCQ)", "B\n[2, 6]"), "From <t>2</t>s to <t>6</t>s")) == [1]


def test_the_answers_box_is_rescaled_from_the_original_to_the_resized_frame():
    group = answered(VISUAL, f"<box>{CUP_PIXELS}</box>", "<box>[20,20,60,80]</box>", "<box>[10,10,30,25]</box>", "cup")
    assert ans_viou(group) == pytest.approx([1, 10 * 20 / (20 * 30 + 40 * 60 - 10 * 20), 0.5, 0])
    of_twice_the_size = sample("visual QA", "<box>[40,40,120,160]</box>", image_size=(400, 200))
    assert ans_viou(answered(of_twice_the_size, f"<box>{CUP_PIXELS}</box>")) == [1]
    for size in (None, (0, 0)):  # the video's own size is used instead
        without_size = sample("visual QA", VISUAL.answer, image_size=size)
        assert ans_viou(answered(without_size, f"<box>{CUP_PIXELS}</box>")) == [1]
    assert ans_viou(answered(GENERAL, f"<box>{CUP_PIXELS}</box>")) == [0]


def test_the_answers_box_is_read_in_the_policys_space():
    group = answered(VISUAL, "<box>[100,200,300,800]</box>")
    assert ans_viou(replace(group, box_space="thousand")) == pytest.approx([1])
    assert ans_viou(group)[0] < 0.1


def test_without_a_frame_size_boxes_cannot_be_judged():
    for of in (VISUAL, SPATIO_TEMPORAL):
        with pytest.raises(BadInput, match="frame_size"):
            thk_spatial(view(of, completion(claim(), "a"), frames=None))
        assert thk_spatial(view(of, completion("", "a"), frames=None)) == [0]
    with pytest.raises(BadInput, match="frame_size"):
        ans_viou(view(VISUAL, completion("", "<box>[20,20,60,80]</box>"), frames=None))
    assert thk_spatial(view(GENERAL, "", frames=None)) == ans_viou(view(GENERAL, "", frames=None)) == [0]


@pytest.mark.parametrize(
    ("of", "think", "expected"),
    [
        (GENERAL, "I look.", 1),
        (GENERAL_MCQ, claim(), 1),
        (SPATIO_TEMPORAL, claim(), 1),
        (SPATIO_TEMPORAL, "I look.", 0.5),
        (SPATIO_TEMPORAL, "<obj>cup</obj> at <t>2</t>s", 0.5),
        (TEMPORAL, "<t>2</t>s and <t>6</t>s", 1),
        (TEMPORAL, claim(), 0.5),
        (TEMPORAL_MCQ, claim() + claim(), 1),
        (VISUAL, "<obj>cup</obj><box>[1,2,3,4]</box>", 1),
        (VISUAL, "<box>[1,2,3,4]</box>", 0.5),
        (VISUAL, "<obj></obj><box>[1,2,3,4]</box>", 0.5),
        (VISUAL, "<obj>cup</obj><box>[]</box>", 0.5),
        (VISUAL, "<obj>cup</obj> <box>[1,2,3,4]</box> at <t>0</t>", 1),
        (SPATIO_TEMPORAL, "<obj></obj><box></box><t></t>", 0.5),
        (SPATIO_TEMPORAL, "<obj>cup</obj><box>[]</box><t>2</t>", 0.5),
        (TEMPORAL, "<t></t> and <t> </t>", 0.5),
        (TEMPORAL, "<t>2</t> and <t> </t>", 0.5),
        (SPATIO_TEMPORAL, "</obj>dog<obj> <box>[1,2,3,4]</box><t>2</t>", 0.5),
        (SPATIO_TEMPORAL, "<obj><obj>dog</obj></obj><box>[1,2,3,4]</box><t>2</t>", 0.5),
        (SPATIO_TEMPORAL, "<obj>dog</obj><box>x</box><t>2</t>", 0.5),
        (SPATIO_TEMPORAL, "<obj><obj>dog</obj></obj>" + claim(), 1),
        (TEMPORAL, "<t>soon</t> and <t>later</t>", 0.5),
        (TEMPORAL, "from <t>2</t>s to <t>6</t>s", 1),
        (TEMPORAL, "<t>2-6</t>", 0.5),
        (VISUAL, "<obj>cup</obj><box>[1,2]</box>", 0.5),
        (VISUAL, "<obj><obj>dog</obj><box>[1,2,3,4]</box></obj>", 0.5),
        (GENERAL, "a <think>b</think> c", 0),
        (GENERAL, "a</think><answer>b</answer><think>c", 1),
        (GENERAL, "<obj>cup", 0),
        (GENERAL, "</box>", 0),
        (GENERAL, "<t>2<t>3</t>", 0),
        (GENERAL, "<think>", 0),
        (GENERAL, "</answer>", 0),
    ],
)
def test_format(of: Sample, think: str, expected: float):
    assert open_o3_format(thought(of, think)) == [expected]


@pytest.mark.parametrize("text", ["", "B", "<think>a</think>", "<answer>a</answer>", "<think>a</think><answer>a"])
def test_format_needs_thought_and_answer(text: str):
    assert open_o3_format(view(GENERAL, text)) == [0]


def test_the_format_of_visual_qa_looks_in_the_whole_completion():
    evidence = "<obj>red cup</obj><box>[1,2,3,4]</box>"
    assert open_o3_format(answered(VISUAL, evidence, "a cup", "<obj></obj><box>[1,2,3,4]</box>")) == [1, 0.5, 0.5]
    assert open_o3_format(view(VISUAL, f"<think>a</think><answer>b</answer>{evidence}")) == [1]


def test_nested_answers_are_no_format():
    assert open_o3_format(view(GENERAL, "<think>a</think><answer><answer>b</answer></answer>")) == [0]


def test_the_format_of_visual_qa_accepts_objects_of_several_words():
    assert open_o3_format(thought(VISUAL, "<obj>the small red cup</obj><box>[1,2,3,4]</box>")) == [1]


def test_segment_is_the_share_of_times_in_the_true_span():
    thoughts = (
        "<t>2.0</t>s <t>6.0</t>s",
        claim(time="1.9") + "then <t>4</t>s",
        "<t>1</t>s to <t>3</t>s",
        "now",
    )
    assert thk_temporal_segment(thought(TEMPORAL, *thoughts)) == [1, 0.5, 0.5, 0]
    assert thk_temporal_segment(thought(TEMPORAL_MCQ, *thoughts)) == [1, 0.5, 0.5, 0]
    assert thk_temporal_segment(thought(SPATIO_TEMPORAL, *thoughts)) == [0, 0, 0, 0]


def test_a_printed_time_is_in_the_span_if_its_frame_is():
    of = sample("temporal QA", "[2.0, 9.98]", spans=((2.0, 9.98),))
    group = thought(of, "<t>10.0</t>s <t>10.1</t>s")
    assert thk_temporal_segment(group) == [0]
    assert thk_temporal_segment(replace(group, printed={10.0: 9.967})) == [0.5]


@pytest.mark.parametrize(("progress", "sigma"), [(0.0, 4.0), (0.5, 2.0), (0.74, 1.04), (0.75, 1.0), (1.0, 1.0)])
def test_point_is_proximity_to_a_key_frame_and_becomes_stricter(progress: float, sigma: float):
    of_3, of_5 = math.exp(-1 / (2 * sigma**2)), math.exp(-1 / (2 * sigma**2))
    group = thought(SPATIO_TEMPORAL, claim(time="2.0"), claim(time="3.0") + "and <t>5.0</t>s, <t>6</t>s", "")
    terms = thk_temporal_point(view(group.sample, *group.texts, progress=progress))
    assert terms == pytest.approx([1, (of_3 + of_5 + 1) / 3, 0])
    assert thk_temporal_point(thought(TEMPORAL, claim())) == [0]


def spatial(*thoughts: str, of: Sample = SPATIO_TEMPORAL, **options: Any) -> list[float]:
    return thk_spatial(thought(of, *thoughts), **options)


def test_spatial_fit_is_the_mean_over_claims():
    half = claim("[10,10,30,25]")
    assert spatial(claim(), half, claim() + half, "nothing") == pytest.approx([1, 0.5, 0.75, 0])


def test_a_claim_too_far_in_time_counts_and_earns_nothing():
    assert spatial(claim() + claim("[50,10,70,40]", time="9.1")) == [0.5]
    assert spatial(claim() + claim("[50,10,70,40]", time="9.0")) == [1]


def test_the_gate_uses_the_absolute_distance():
    """The released code lacks abs(): a claim at any time after the key frame passes its gate."""
    assert spatial(claim("[50,10,70,40]", time="60.0")) == [0]
    assert spatial(claim(time="0.5"), tau=1.0) == [0]


def test_the_gate_is_three_seconds_wide_and_can_be_set():
    """The released code uses 1 s, the paper 3 s."""
    late = claim("[50,10,70,40]", time="8.5")
    assert spatial(late) == [1]
    assert spatial(late, tau=1.0) == [0]


def test_key_frames_after_the_last_sampled_frame_count():
    """The released code drops them."""
    assert FRAMES.times[-1] == 7.0
    of = sample(
        SPATIO_TEMPORAL.task, key_frames=(KeyFrame("3", 2.0), KeyFrame("40", 7.9)), key_items={"40": {"cup": (CUP,)}}
    )
    assert spatial(claim(time="7.9"), of=of) == [1]
    assert thk_temporal_point(thought(of, claim(time="7.9"))) == [1]


def test_several_boxes_of_one_object_are_one_claim():
    both = ((0.1, 0.2, 0.3, 0.8), (0.5, 0.2, 0.7, 0.8))
    of = sample(SPATIO_TEMPORAL.task, key_frames=(KeyFrame("3", 2.0),), key_items={"3": {"cups": both}})
    two = f"<obj>cups</obj><box>{CUP_PIXELS}</box><box>[50,10,70,40]</box>at<t>2</t>s"
    one = f"<obj>cups</obj><box>{CUP_PIXELS}</box>at<t>2</t>s"
    assert spatial(two, one, one + two, of=of) == [1, 0.5, 0.75]


def test_the_best_object_of_the_nearest_key_frame_counts():
    dog, cup = claim("[0,0,20,20]", time="5.5", phrase="cup"), claim("[50,10,70,40]", time="5.5")
    elsewhere = claim(CUP_PIXELS, time="5.5")  # where the cup is at 2 s
    assert spatial(dog, cup, elsewhere) == [1, 1, pytest.approx(100 / (400 + 600 - 100))]


def test_only_key_frames_with_boxes_count_as_nearest():
    keys = (KeyFrame("3", 2.0), KeyFrame("9", 3.0), KeyFrame("12", 4.0))
    of = sample(SPATIO_TEMPORAL.task, key_frames=keys, key_items={"3": {"red cup": (CUP,)}, "12": {"red cup": ()}})
    assert spatial(claim(time="3.5"), of=of) == [1]


def test_a_degenerate_box_is_a_claim_without_fit_and_an_unreadable_box_is_not_a_claim():
    assert spatial(claim() + claim("[30,10,10,40]")) == [0.5]
    assert spatial(claim() + claim("[30,10]")) == [1]


def test_visual_qa_uses_the_best_box_of_the_thought_without_a_gate():
    far, near = claim("[60,10,80,40]", time="0.0"), claim("[10,10,30,25]", time="99")
    assert spatial(far + near, far, "<obj>cup</obj><box>[10,10,30,40]</box>", of=VISUAL) == pytest.approx([0.5, 0, 1])


def tiles() -> str:
    """24 boxes that tile the frame; the cup fills exactly one of them."""
    corners = [(x, y) for x in range(0, 100, 25) for y in range(0, 48, 8)]
    return "".join(f"<box>[{x},{y},{x + 25},{y + 8}]</box>" for x, y in corners)


def test_boxes_all_over_the_frame_pay_as_released_and_not_per_box():
    """A defect of the released reward: further boxes cost nothing."""
    cup = {"3": {"cup": ((0.25, 0.16, 0.5, 0.32),)}}
    of = sample(SPATIO_TEMPORAL.task, key_frames=(KeyFrame("3", 2.0),), key_items=cup)
    tiled, alone = f"<obj>cup</obj>{tiles()}at<t>2</t>s", claim("[25,8,50,16]")
    assert spatial(tiled, alone, of=of) == pytest.approx([1, 1])
    assert spatial(tiled, alone, tiled + alone, of=of, per="box") == pytest.approx([1 / 24, 1, 25 / 48])
    visual = sample("visual QA", "<box>[50,16,100,32]</box>", image_size=(200, 100))
    assert spatial(tiled, alone, of=visual) == pytest.approx([1, 1])
    assert spatial(tiled, alone, "a", of=visual, per="box") == pytest.approx([1 / 24, 1, 0])


def test_per_box_as_many_boxes_as_labels_earn_the_same():
    both = ((0.1, 0.2, 0.3, 0.8), (0.5, 0.2, 0.7, 0.8))
    of = sample(SPATIO_TEMPORAL.task, key_frames=(KeyFrame("3", 2.0),), key_items={"3": {"cups": both}})
    two = f"<obj>cups</obj><box>{CUP_PIXELS}</box><box>[50,10,70,40]</box>at<t>2</t>s"
    three = two.replace("at<t>", "<box>[0,0,5,5]</box>at<t>")
    assert spatial(two, claim(), three, of=of, per="box") == pytest.approx([1, 0.5, 2 / 3])


def test_samples_without_labels_earn_nothing():
    bare = sample(SPATIO_TEMPORAL.task)
    assert spatial(claim(), of=bare) == [0]
    assert thk_temporal_point(thought(bare, claim())) == [0]
    assert thk_temporal_segment(thought(sample("temporal QA", "soon"), claim())) == [0]
    assert spatial(claim(), of=sample("visual QA", "a cup")) == [0]
