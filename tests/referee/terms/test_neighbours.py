"""RLER's, Video-R1's, Time-R1's, VideoChat-R1's, DAPO's and Video-VER's terms."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from views import answered, sample, thought, view

from evidence.errors import BadInput
from evidence.geometry import tiou
from referee.terms.judge import text_judge
from referee.terms.rler import anti_repetition, frame_sensitive, rler_format, think_transparency
from referee.terms.shaping import overlong
from referee.terms.temporal import temporal_iou, temporal_iou_boundary, temporal_iou_multi
from referee.terms.video_r1 import length_window, t_grpo, video_r1_format
from referee.terms.view import GroupView

SPAN = sample("temporal QA", "[2.0, 6.0]", spans=((2.0, 6.0),), duration=10.0)
SPANS = sample("temporal QA", "[1, 5]", spans=((1.0, 3.0), (2.0, 5.0), (7.0, 8.0)))


def cites(frames: str) -> str:
    return f"<think>a</think><keyframes>{frames}</keyframes><answer>b</answer>"


def test_cited_frames_pay_less_the_fewer_and_the_more_wrong():
    """Eight frames are shown, 0 to 7."""
    cited = ("[3, 5]", "[3]", "[3, 3, 3]", "[3, 5, 8]", "[8]", "[3, x]", "[]")
    expected = [2 / 3, 1 / 2, 1 / 2, 1 / 3, 0, 0, 0]
    assert frame_sensitive(view(sample(), *map(cites, cited))) == pytest.approx(expected)
    assert frame_sensitive(view(sample(), "<think>a</think>")) == [0]
    with pytest.raises(BadInput, match="frame_times"):
        frame_sensitive(view(sample(), cites("[3]"), frames=None))
    assert frame_sensitive(view(sample(), cites("[]"), frames=None)) == [0]


def test_rlers_form():
    swapped = "<think>a</think><answer>b</answer><keyframes>[3]</keyframes>"
    texts = (cites("[3]"), cites("[99]"), cites("[]"), cites("[3]") * 2, swapped, "<think>a</think><answer>b</answer>")
    assert rler_format(view(sample(), *texts)) == [1, 1, 0, 0, 0, 0]


def test_transparency_is_greatest_half_way():
    group = thought(sample(), "w " * 8, "w " * 4, "w " * 2, "w " * 20, "", "<obj>w</obj> <box>w</box>w w")
    assert think_transparency(group, high=8) == pytest.approx([0, 1, 0.5, 0, 0, 1], abs=1e-12)
    assert think_transparency(group, low=4, high=12) == pytest.approx([1, 0, 0, 0, 0, 0], abs=1e-12)
    assert think_transparency(view(sample(), "w w w w"), high=8) == [0]
    with pytest.raises(BadInput, match="low < high"):
        think_transparency(group, low=8, high=8)


def test_repetition_is_the_share_of_runs_seen_before():
    group = thought(sample(), "a b c d", "A b a B a b", "x x x x", "a b", "")
    assert anti_repetition(group, n=2) == pytest.approx([0, -(1 - 2 / 5), -(1 - 1 / 3), 0, 0])
    assert anti_repetition(group, n=1) == pytest.approx([0, -(1 - 2 / 6), -(1 - 1 / 4), 0, 0])
    with pytest.raises(BadInput, match="n = 0"):
        anti_repetition(group, n=0)


def test_temporal_iou_by_hand():
    said = answered(SPAN, "<t>4</t>s to <t>8</t>s", "[2, 6]", "7 to 9", "6 to 2", "soon")
    assert temporal_iou(said) == pytest.approx([2 / 6, 1, 0, 0, 0])
    assert temporal_iou_boundary(said) == pytest.approx([2 / 6 * 0.8 * 0.8, 1, 0, 0, 0])
    assert temporal_iou_multi(said) == pytest.approx([2 / 6, 1, 0, 0, 0])


def test_the_boundary_terms_take_the_videos_length():
    unknown = replace(SPAN, duration=None)
    assert temporal_iou_boundary(answered(unknown, "4 to 8")) == pytest.approx([2 / 6 * 0.75 * 0.75])  # 8 s decoded
    assert math.isnan(temporal_iou_boundary(view(unknown, "", frames=None))[0])
    assert temporal_iou_boundary(answered(SPAN, "2 to 600")) == [0]  # not below it


def test_several_intervals_are_merged_where_they_overlap():
    """The truth is 1 to 5 and 7 to 8: five seconds."""
    said = answered(SPANS, "[(1, 5), (7, 8)]", "[(1, 3), (1, 3)]", "[(0, 2), (1, 4), (9, 10)]", "[(1, 5), (8, 7)]")
    assert temporal_iou_multi(said) == pytest.approx([1, 2 / 5, 3 / 7, 0])


ends = st.tuples(st.integers(0, 20), st.integers(0, 20)).map(sorted).map(tuple)


@given(ends, ends)
def test_of_two_intervals_hull_and_union_give_the_same(a: tuple[int, int], b: tuple[int, int]):
    of = sample("temporal QA", spans=(b,))
    assert temporal_iou_multi(answered(of, f"{a[0]} to {a[1]}")) == [pytest.approx(tiou(a, b))]


def test_no_span_is_no_reward():
    bare = answered(sample(duration=9.0), "2 to 6")
    assert temporal_iou(bare) == temporal_iou_boundary(bare) == temporal_iou_multi(bare) == [0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>a</think>\n <answer>b</answer>\n", 1),
        ("<think>a</think><answer>b</answer>!", 0),
        ("Well: <think>a</think><answer>b</answer>", 0),
        ("<think>a</think>so<answer>b</answer>", 0),
        ("<answer>b</answer><think>a</think>", 0),
        ("<think>a</think><answer>b", 0),
        ("", 0),
    ],
)
def test_video_r1s_form(text: str, expected: float):
    assert video_r1_format(view(sample(), text)) == [expected]


def known(acc: list[float], **fields: object) -> GroupView:
    group = view(sample(), *[""] * len(acc))
    return replace(group, terms={"acc": np.array(acc, np.float32)}, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shown", "shuffled", "expected"),
    [
        ([1, 0, 1, 0.1], [1, 0], [1, 0, 1, 0]),
        ([1, 0, 0, 0], [1, 1], [0, 0, 0, 0]),
        ([1, 1, 1, 1, 0], [1, 1], [1, 1, 1, 1, 0]),  # exactly .8 of it
        ([0, 0], [0, 0], [0, 0]),
    ],
)
def test_order_of_frames_has_to_help(shown: list[float], shuffled: list[float], expected: list[float]):
    assert t_grpo(known(shown, contrast=known(shuffled))) == expected


def test_what_is_not_known_leaves_the_term_out():
    assert all(map(math.isnan, t_grpo(known([1, 0]))))
    assert all(map(math.isnan, t_grpo(known([1, math.nan], contrast=known([1])))))
    assert all(map(math.isnan, length_window(known([1, 0]))))
    assert all(map(math.isnan, length_window(known([1, math.nan], lengths=(400, 400)))))
    assert all(map(math.isnan, overlong(known([1, 0]))))
    assert all(map(math.isnan, text_judge(known([1, 0]))))


def test_a_moderate_length_pays_if_several_are_right():
    lengths = (319, 320, 512, 513, 400)
    assert length_window(known([1, 1, 0.2, 1, 0.1], lengths=lengths)) == [0, 1, 1, 0, 0]
    assert length_window(known([0, 1, 0, 0, 0.1], lengths=lengths)) == [0, 0, 0, 0, 0]


def test_overlong_falls_in_the_last_tokens():
    group = known([0] * 5, lengths=(10, 80, 85, 100, 300))
    assert overlong(group, max_tokens=100, cache=20) == pytest.approx([0, 0, -0.25, -1, -1])
    with pytest.raises(BadInput, match="cache"):
        overlong(group, max_tokens=100, cache=0)


def test_the_judges_score_is_taken_as_it_is():
    scores = text_judge(known([1, 1, 1], judgements=(0.5, None, 1.0)))
    assert scores[::2] == [0.5, 1.0]
    assert math.isnan(scores[1])
