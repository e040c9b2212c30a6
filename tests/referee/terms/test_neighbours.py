"""Terms of RLER, Video-R1, Time-R1, VideoChat-R1, DAPO and Video-VER."""

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
from referee.terms.shaping import overlong, overlong_span
from referee.terms.temporal import temporal_iou, temporal_iou_boundary, temporal_iou_multi
from referee.terms.video_r1 import length_window, t_grpo, video_r1_format
from referee.terms.view import GroupView

SPAN = sample("temporal QA", "[2.0, 6.0]", spans=((2.0, 6.0),), duration=10.0)
SPANS = sample("temporal QA", "[1, 5]", spans=((1.0, 3.0), (2.0, 5.0), (7.0, 8.0)))


def cites(frames: str) -> str:
    return f"<think>a</think><keyframes>{frames}</keyframes><answer>b</answer>"


def test_frame_sensitive_rises_with_valid_and_falls_with_invalid_citations():
    """Eight frames are shown, 0 to 7."""
    cited = ("[3, 5]", "[3]", "[3, 3, 3]", "[3, 5, 8]", "[8]", "[3, x]", "[]")
    expected = [2 / 3, 1 / 2, 1 / 2, 1 / 3, 0, 0, 0]
    assert frame_sensitive(view(sample(), *map(cites, cited))) == pytest.approx(expected)
    assert frame_sensitive(view(sample(), "<think>a</think>")) == [0]
    with pytest.raises(BadInput, match="frame_times"):
        frame_sensitive(view(sample(), cites("[3]"), frames=None))
    assert frame_sensitive(view(sample(), cites("[]"), frames=None)) == [0]


def test_rler_format():
    swapped = "<think>a</think><answer>b</answer><keyframes>[3]</keyframes>"
    texts = (cites("[3]"), cites("[99]"), cites("[]"), cites("[3]") * 2, swapped, "<think>a</think><answer>b</answer>")
    assert rler_format(view(sample(), *texts)) == [1, 1, 0, 0, 0, 0]


def test_transparency_is_greatest_halfway():
    group = thought(sample(), "w " * 8, "w " * 4, "w " * 2, "w " * 20, "", "<obj>w</obj> <box>w</box>w w")
    assert think_transparency(group, high=8) == pytest.approx([0, 1, 0.5, 0, 0, 1], abs=1e-12)
    assert think_transparency(group, low=4, high=12) == pytest.approx([1, 0, 0, 0, 0, 0], abs=1e-12)
    assert think_transparency(view(sample(), "w w w w"), high=8) == [0]
    with pytest.raises(BadInput, match="low < high"):
        think_transparency(group, low=8, high=8)


def test_repetition_is_the_share_of_repeated_runs():
    group = thought(sample(), "a b c d", "A b a B a b", "x x x x", "a b", "")
    assert anti_repetition(group, n=2) == pytest.approx([0, -(1 - 2 / 5), -(1 - 1 / 3), 0, 0])
    assert anti_repetition(group, n=1) == pytest.approx([0, -(1 - 2 / 6), -(1 - 1 / 4), 0, 0])
    with pytest.raises(BadInput, match="n = 0"):
        anti_repetition(group, n=0)


def test_temporal_iou_by_hand():
    group = answered(SPAN, "<t>4</t>s to <t>8</t>s", "[2, 6]", "7 to 9", "6 to 2", "soon")
    assert temporal_iou(group) == pytest.approx([2 / 6, 1, 0, 0, 0])
    assert temporal_iou_boundary(group) == pytest.approx([2 / 6 * 0.8 * 0.8, 1, 0, 0, 0])
    assert temporal_iou_multi(group) == pytest.approx([2 / 6, 1, 0, 0, 0])


def test_the_boundary_term_uses_the_videos_duration():
    unknown = replace(SPAN, duration=None)
    assert temporal_iou_boundary(answered(unknown, "4 to 8")) == pytest.approx([2 / 6 * 0.75 * 0.75])  # 8 s decoded
    assert math.isnan(temporal_iou_boundary(view(unknown, "", frames=None))[0])
    assert temporal_iou_boundary(answered(SPAN, "2 to 600")) == [0]  # and not below 0


def test_several_intervals_are_merged_where_they_overlap():
    """The true spans merge to 1-5 and 7-8: five seconds."""
    group = answered(SPANS, "[(1, 5), (7, 8)]", "[(1, 3), (1, 3)]", "[(0, 2), (1, 4), (9, 10)]", "[(1, 5), (8, 7)]")
    assert temporal_iou_multi(group) == pytest.approx([1, 2 / 5, 3 / 7, 0])


ends = st.tuples(st.integers(0, 20), st.integers(0, 20)).map(sorted).map(tuple)


@given(ends, ends)
def test_hull_and_union_agree_for_two_intervals(a: tuple[int, int], b: tuple[int, int]):
    of = sample("temporal QA", spans=(b,))
    assert temporal_iou_multi(answered(of, f"{a[0]} to {a[1]}")) == [pytest.approx(tiou(a, b))]


def test_samples_without_spans_earn_nothing():
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
def test_video_r1_format(text: str, expected: float):
    assert video_r1_format(view(sample(), text)) == [expected]


def known(acc: list[float], **fields: object) -> GroupView:
    group = view(sample(), *[""] * len(acc))
    return replace(group, terms={"acc": np.array(acc, np.float32)}, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shown", "shuffled", "expected"),
    [
        ([1, 0, 1, 0.1], [1, 0], [1, 0, 1, 0]),
        ([1, 0, 0, 0], [1, 1], [0, 0, 0, 0]),
        ([1, 1, 1, 1, 0], [1, 1], [1, 1, 1, 1, 0]),  # exactly the share .8
        ([0, 0], [0, 0], [0, 0]),
    ],
)
def test_t_grpo_pays_only_if_the_order_of_frames_helps(
    shown: list[float], shuffled: list[float], expected: list[float]
):
    assert t_grpo(known(shown, contrast=known(shuffled))) == expected


def test_t_grpo_neither_pays_nor_misses_a_contrast_where_there_is_no_order():
    right = known([1, 1])
    image = replace(right, sample=replace(sample(), video_path=None, image_path="a.png"), frames=None)
    assert right.frames is not None
    single = replace(right, frames=replace(right.frames, times=(0.0,)))
    for group in (image, single):
        assert t_grpo(group) == t_grpo(replace(group, contrast=known([0]))) == [0, 0]


def test_missing_inputs_give_nan():
    assert all(map(math.isnan, t_grpo(known([1, 0]))))
    assert all(map(math.isnan, t_grpo(known([1, math.nan], contrast=known([1])))))
    assert all(map(math.isnan, length_window(known([1, 0]))))
    assert all(map(math.isnan, length_window(known([1, math.nan], lengths=(400, 400)))))
    assert all(map(math.isnan, overlong(known([1, 0]))))
    assert all(map(math.isnan, text_judge(known([1, 0]))))


def test_length_window_pays_only_if_several_are_right():
    lengths = (319, 320, 512, 513, 400)
    assert length_window(known([1, 1, 0.2, 1, 0.1], lengths=lengths)) == [0, 1, 1, 0, 0]
    assert length_window(known([0, 1, 0, 0, 0.1], lengths=lengths)) == [0, 0, 0, 0, 0]


def test_overlong_falls_linearly_over_the_cache():
    group = known([0] * 5, lengths=(10, 80, 85, 100, 300))
    assert overlong(group, max_tokens=100, cache=20) == pytest.approx([0, 0, -0.25, -1, -1])
    assert overlong(replace(group, max_tokens=100)) == pytest.approx([0, 0, -0.25, -1, -1]), "a fifth of the limit"
    assert overlong(group, max_tokens=100) == overlong(replace(group, max_tokens=100))
    with pytest.raises(BadInput, match="max_tokens = null: must be given here"):
        overlong(group)


@pytest.mark.parametrize(
    ("max_tokens", "cache", "limit", "span"),
    [
        (None, None, 20480, (20480, 4096)),  # DAPO's numbers
        (None, None, 3, (3, 1)),
        (None, 56, 256, (256, 56)),
        (300, None, 256, (300, 60)),
        (356, 101, 256, (356, 101)),
        (100, 100, None, (100, 100)),
        (None, None, None, None),
        (None, 128, None, None),
    ],
)
def test_the_overlong_penalty_follows_the_limit_of_sampling(
    max_tokens: int | None, cache: int | None, limit: int | None, span: tuple[int, int] | None
):
    assert overlong_span(max_tokens, cache, limit) == span


@pytest.mark.parametrize(
    ("max_tokens", "cache", "limit", "message"),
    [
        (100, 0, None, "0 < cache <= max_tokens"),
        (100, 101, None, "0 < cache <= max_tokens"),
        (None, 0, None, "0 < cache <= max_tokens"),
        (0, None, 9, "0 < cache <= max_tokens"),
        (None, 257, 256, "0 < cache <= max_tokens"),
        (768, 128, 256, r"max_tokens - cache < sampling.max_tokens \(256\)"),
        (356, 100, 256, "no completion is ever long enough"),
    ],
)
def test_an_overlong_penalty_that_cannot_be_is_refused(
    max_tokens: int | None, cache: int | None, limit: int | None, message: str
):
    with pytest.raises(BadInput, match=message):
        overlong_span(max_tokens, cache, limit)


def test_text_judge_returns_the_judges_scores():
    scores = text_judge(known([1, 1, 1], judgements=(0.5, None, 1.0)))
    assert scores[::2] == [0.5, 1.0]
    assert math.isnan(scores[1])
