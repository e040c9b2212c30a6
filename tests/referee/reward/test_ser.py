import math

import pytest

from evidence.errors import BadInput
from evidence.grammar import DEGENERATE, parse
from evidence.types import Claim, FrameInfo, KeyFrame, Sample, Verdict
from referee.reward.ser import (
    NO_VERDICT,
    NO_WORDS,
    OUT_OF_FRAME,
    OUTSIDE_VIDEO,
    OVER_CAP,
    TOO_LOOSE,
    WHOLE_FRAME,
    Ser,
    SerConfig,
    claim_counts,
    claims_to_verify,
    label_spans,
    score,
    temporal_penalty,
)
from referee.terms.view import GroupView

INFO = FrameInfo("k", tuple(map(float, range(8))), (56, 56), (112, 112), 7.25)
CFG = SerConfig()
GOOD = Verdict(1.0, 1.0)


def at(time: float, until: float | None = None) -> Claim:
    return Claim("red circle", (10, 10, 30, 30), time, (0, 0), until=until)


def sample(**known) -> Sample:
    return Sample("a", "test", "temporal-spatial free-form QA", "Where?", "top left", video_path="a.mp4", **known)


def claim(box="10,10,30,30", time="3.0", phrase="red circle") -> str:
    return f"<obj>{phrase}</obj><box>[{box}]</box>at<t>{time}</t>s "


def completion(*claims: str, answer: str = "top left"):
    return parse(f"<think>{''.join(claims)}</think><answer>{answer}</answer>")


def r_ser(verdicts, *claims: str, cfg: SerConfig = CFG) -> float:
    return score(completion(*claims), verdicts, INFO, cfg)[1]


def test_the_formula_on_three_claims():
    verdicts = [Verdict(1.0, 0.5), Verdict(0.5, 0.5), Verdict(0.0, 1.0)]
    claims = [claim(time="1.0"), claim(time="3.0"), claim(time="5.5")]
    penalty = 1 - math.exp(-(0.5**2) / 2)
    scores, total = score(completion(*claims), verdicts, INFO, CFG)
    assert [s.score for s in scores] == pytest.approx([0.5, 0.25, 0])
    assert scores[2].temporal_penalty == pytest.approx(penalty)
    assert total == pytest.approx(0.75 / 3)


@pytest.mark.parametrize(
    ("combine", "expected"), [("product", 0.4), ("mean", 0.65), ("min", 0.5), ("weighted", 0.25 * 0.8 + 0.75 * 0.5)]
)
def test_combinations(combine: str, expected: float):
    cfg = SerConfig(combine=combine, relevance_weight=0.25, m_min=1)
    assert r_ser([Verdict(0.8, 0.5)], claim(), cfg=cfg) == pytest.approx(expected)


def test_temporal_penalty_grows_with_the_distance_to_a_frame_and_is_1_outside_the_video():
    near, far = temporal_penalty(at(3.1), INFO, CFG), temporal_penalty(at(3.5), INFO, CFG)
    assert temporal_penalty(at(3.0), INFO, CFG) == 0
    assert 0 < near < far < 1
    assert far == pytest.approx(1 - math.exp(-0.125))
    assert temporal_penalty(at(3.5), INFO, SerConfig(sigma=0.5)) > far
    assert temporal_penalty(at(-0.1), INFO, CFG) == temporal_penalty(at(7.3), INFO, CFG) == 1


def test_an_interval_is_charged_for_its_width_and_its_distance():
    moment, width = temporal_penalty(at(3.5), INFO, CFG), 2.9 / 7.25
    assert temporal_penalty(at(3.0, 3.0), INFO, CFG) == 0
    assert temporal_penalty(at(3.0, 5.9), INFO, CFG) == pytest.approx(width)
    assert temporal_penalty(at(3.5, 6.4), INFO, CFG) == pytest.approx(1 - (1 - moment) * (1 - width))
    assert temporal_penalty(at(0.0, 7.25), INFO, CFG) == 1
    assert temporal_penalty(at(3.0, 7.3), INFO, CFG) == temporal_penalty(at(-0.1, 3.0), INFO, CFG) == 1


def test_the_moment_of_an_image_has_no_penalty():
    image = FrameInfo("k", (0.0,), (56, 56), (112, 112), 0.0)
    assert temporal_penalty(at(0.0), image, CFG) == temporal_penalty(at(0.0, 0.0), image, CFG) == 0


def test_a_wide_interval_earns_less_than_its_start():
    cfg = SerConfig(m_min=1)
    assert r_ser([GOOD], claim(time="1.0"), cfg=cfg) == 1
    assert r_ser([GOOD], claim(time="1.0-3.9"), cfg=cfg) == pytest.approx(0.6)


def test_lambda_t_is_the_share_that_loose_timing_can_take():
    cfg = SerConfig(lambda_t=0.5, m_min=1)
    assert r_ser([GOOD], claim(time="99.0"), cfg=cfg) == pytest.approx(0.5)


def test_no_claims_earn_nothing():
    assert r_ser([]) == 0


def test_one_safe_claim_is_not_optimal():
    one = r_ser([GOOD], claim(time="1.0"))
    two = r_ser([GOOD, GOOD], claim(time="1.0"), claim(time="4.0"))
    assert one == 0.5
    assert two == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (claim(box="30,10,30,30"), DEGENERATE),
        (claim(box="30,10,10,30"), DEGENERATE),
        (claim(box="10,10,10.5,30"), DEGENERATE),
        (claim(box="-5,10,30,30"), OUT_OF_FRAME),
        (claim(box="10,10,30,60"), OUT_OF_FRAME),
        (claim(box="100,100,130,130"), OUT_OF_FRAME),
        (claim(box="0,0,56,46"), WHOLE_FRAME),
        (claim(phrase="?!"), NO_WORDS),
        (claim(time="7.5"), OUTSIDE_VIDEO),
        (claim(time="6.0-7.5"), OUTSIDE_VIDEO),
        (claim(box="30,30,50,50", time="0.0-7.25"), TOO_LOOSE),
    ],
)
def test_guarded_claims_earn_nothing_and_are_not_verified(text: str, reason: str):
    good = claim(time="1.0")
    guarded = completion(text, good)
    assert [c.time for c in claims_to_verify(guarded, INFO, CFG)] == [1.0]
    scores, total = score(guarded, [GOOD], INFO, CFG)
    assert (scores[0].verdict, scores[0].score) == (Verdict(0.0, 0.0, reason), 0)
    assert total == 0.5
    cfg = SerConfig(m_min=1)
    assert score(guarded, [GOOD], INFO, cfg)[1] == 0.5  # it counts in M, so writing it has a cost


def test_boxes_just_within_the_bounds_of_edge_and_area_are_verified():
    texts = [claim(box="-1,10,57,30"), claim(box="0,0,56,44", time="1.0")]
    assert len(claims_to_verify(completion(*texts), INFO, CFG)) == 2


def test_in_a_video_shown_as_one_frame_claims_at_any_times_can_be_copies():
    single_frame = FrameInfo("k", (3.0,), (56, 56), (112, 112), 7.25)
    cfg = SerConfig(m_min=1, sigma=100.0)
    claims = completion(claim(time="1.0"), claim(time="7.0"))
    scores, total = score(claims, [GOOD, Verdict(0.0, 0.0)], single_frame, cfg)
    assert scores[0].score > 0.9
    assert total == 0  # one claim, of the lower score


def test_claims_over_the_cap_are_not_verified_and_cost():
    cfg = SerConfig(max_claims=2)
    claims = [claim(time=f"{2 * k}.0") for k in range(4)]
    assert len(claims_to_verify(completion(*claims), INFO, cfg)) == 2
    scores, total = score(completion(*claims), [GOOD, GOOD], INFO, cfg)
    assert [s.verdict.flag for s in scores] == [None, None, OVER_CAP, OVER_CAP]
    assert total == 0.5


@pytest.mark.parametrize(
    "copy",
    [
        claim(),
        claim(box="11,10,31,30", time="4.0"),
        claim(box="15,10,35,30"),  # IoU .6
        claim(phrase="the red-circle."),
        claim(phrase="scarlet disc"),
        claim(phrase="rеd сirсlе"),  # Cyrillic
    ],
)
def test_a_near_copy_counts_once_with_the_lowest_score(copy: str):
    far = claim(time="6.0")
    assert r_ser([GOOD, GOOD, GOOD], claim(), copy, far) == 1  # two claims, not three
    assert r_ser([GOOD, GOOD], claim(), copy) == r_ser([GOOD, GOOD], copy, claim()) == r_ser([GOOD], claim()) == 0.5
    assert r_ser([GOOD, Verdict(0.5, 0.5)], claim(), copy) == pytest.approx(0.125)
    assert r_ser([Verdict(0.5, 0.5), GOOD], claim(), copy) == pytest.approx(0.125)


@pytest.mark.parametrize("time", ["8.0", "99.0", "999999.0"])
def test_times_judged_on_the_same_frame_are_one_piece_of_evidence(time: str):
    """Without a temporal penalty, every time after the video's end is judged on its last frame."""
    cfg = SerConfig(lambda_t=0.0)
    last, beyond = claim(time="7.0"), claim(time=time)
    assert r_ser([GOOD, GOOD], last, beyond, cfg=cfg) == r_ser([GOOD], last, cfg=cfg) == 0.5
    assert r_ser([GOOD, Verdict(0.0, 0.0)], last, beyond, cfg=cfg) == 0


@pytest.mark.parametrize("other", [claim(time="4.5"), claim(box="17,10,37,30")])  # IoU .48
def test_another_time_or_place_is_another_claim(other: str):
    cfg = SerConfig(lambda_t=0.0)
    assert r_ser([GOOD, GOOD], claim(), other, cfg=cfg) == 1


def test_in_a_chain_of_copies_the_choice_that_earns_least_counts():
    """Claims are one step apart, so only neighbours are copies: either the middle one is kept, or both ends."""
    chain = [claim(time=f"{t}.0") for t in (1, 2, 3)]
    assert r_ser([GOOD, GOOD, GOOD], *chain) == 0.5
    assert r_ser([Verdict(0.4, 1.0), GOOD, Verdict(0.2, 1.0)], *chain) == pytest.approx(0.3)
    assert r_ser([GOOD] * 4, *chain, claim(time="4.0")) == 1  # every choice keeps at least two


def test_incomplete_claims_do_not_count():
    text = completion(claim(time="1.0"), "<obj>red circle</obj><box>[1,2,3]</box>at<t>1.0</t>s")
    assert score(text, [GOOD], INFO, SerConfig(m_min=1))[1] == 1


def test_a_wrong_number_of_verdicts_is_an_error():
    with pytest.raises(ValueError, match="2 verdicts for 1 claims"):
        score(completion(claim()), [GOOD, GOOD], INFO, CFG)


def test_a_missing_verdict_gives_no_total():
    text = completion(claim(), claim(time="6.0"))
    scores, total = score(text, [GOOD, None], INFO, CFG)
    assert total is None
    assert [s.verdict.flag for s in scores] == [None, NO_VERDICT]
    assert [s.score for s in scores] == [1, 0]


def test_labelled_timing_uses_spans_or_else_key_frames():
    cfg = SerConfig(timing="labels")
    spans = label_spans(sample(spans=((1.0, 2.0), (5.0, 6.0))))
    assert temporal_penalty(at(1.5), INFO, cfg, spans) == 0  # inside, however far from a shown frame
    assert temporal_penalty(at(3.0), INFO, cfg, spans) == pytest.approx(1 - math.exp(-0.5))
    assert temporal_penalty(at(4.5), INFO, cfg, spans) == pytest.approx(1 - math.exp(-0.125))
    frames = label_spans(sample(key_frames=(KeyFrame("0", 3.0),)))
    assert temporal_penalty(at(4.0), INFO, cfg, frames) == pytest.approx(1 - math.exp(-0.5))
    assert temporal_penalty(at(3.5), INFO, cfg, label_spans(sample())) == temporal_penalty(at(3.5), INFO, CFG)
    assert temporal_penalty(at(3.0), INFO, CFG, spans) == 0  # labels are ignored with `timing` shown


def test_a_claim_that_also_holds_in_the_next_frame_is_loosely_timed():
    cfg = SerConfig(timing="neighbour", m_min=1)
    assert [c.time for c in claims_to_verify(completion(claim()), INFO, cfg)] == [3.0, 4.0]
    assert [c.time for c in claims_to_verify(completion(claim(time="7.0")), INFO, cfg)] == [7.0, 6.0]
    assert r_ser([GOOD, Verdict(0.0, 1.0)], claim(), cfg=cfg) == 1
    assert r_ser([GOOD, Verdict(0.5, 0.5)], claim(), cfg=cfg) == pytest.approx(0.75)
    assert r_ser([GOOD, GOOD], claim(), cfg=cfg) == 0
    assert r_ser([Verdict(0.5, 1.0), GOOD], claim(), cfg=cfg) == 0
    assert score(completion(claim()), [GOOD, None], INFO, cfg)[1] is None
    image = FrameInfo("k", (0.0,), (56, 56), (112, 112), 0.0)
    assert score(completion(claim(time="0.0")), [GOOD], image, cfg)[1] == 1  # an image has no next frame


def test_the_term_gives_one_number_per_completion_and_nan_for_a_missing_verdict():
    texts = (completion(claim()), completion("x"), completion(claim(time="6.0")))
    view = GroupView(sample(), ("", "", ""), texts, INFO, verdicts=([GOOD], [], [None]))
    first, second, third = Ser(m_min=1)(view)
    assert (first, second) == (1, 0)
    assert math.isnan(third)


def test_claim_counts():
    group = [completion(claim(), claim(box="0,0,56,56"), "<obj>a</obj>"), completion(claim(time="3.5"))]
    verdicts = [[GOOD], [None]]
    evidence = [score(c, v, INFO, CFG)[0] for c, v in zip(group, verdicts)]
    assert claim_counts(group, verdicts, evidence) == {
        "claims": 3,
        "invalid": 1,
        "asked": 2,
        "missing": 1,
        "loose_time": 1,
        f"guard: {WHOLE_FRAME}": 1,
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [("combine", "sum"), ("sigma", 0.0), ("lambda_t", 1.5), ("m_min", 0), ("timing", "x"), ("max_claims", 25)],
)
def test_impossible_settings_are_refused_by_name(key: str, value):
    with pytest.raises(BadInput, match=f"^{key} = "):
        SerConfig(**{key: value})
