"""No way of padding raises r_SER: properties of the pure reward, whatever the referee says of the claims.

A strategy takes an honest completion, in which no claim copies another, and adds claims to it, anywhere. What is added
can be worth nothing (then it must not pay), or copy a claim (then it must not pay even if the referee likes the copy
better). Whatever is written, a completion without its copies is paid as well or better.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence.geometry import iou
from evidence.grammar import Completion
from evidence.types import Claim, FrameInfo, Verdict
from referee.reward.ser import SerConfig, claims_to_verify, score

Judged = tuple[Claim, Verdict]

INFO = FrameInfo("k", tuple(map(float, range(8))), (56, 56), (112, 112), 7.25)
WORDS = ("red circle", "scarlet disc", "blue square", "a green triangle")

side = st.integers(0, 40)
boxes = st.tuples(side, side, st.integers(6, 16), st.integers(6, 16)).map(
    lambda b: (float(b[0]), float(b[1]), float(b[0] + b[2]), float(b[1] + b[3]))
)
times = st.integers(0, 28).map(lambda quarter: quarter / 4)
claims = st.builds(Claim, st.sampled_from(WORDS), boxes, times, st.just((0, 0)))
shares = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
verdicts = st.builds(Verdict, shares, shares)
configs = st.builds(
    SerConfig,
    combine=st.sampled_from(["product", "mean", "min", "weighted"]),
    lambda_t=shares,
    m_min=st.integers(1, 4),
    max_claims=st.integers(1, 12),
)
some = st.lists(st.tuples(claims, verdicts), min_size=1, max_size=5)


def are_copies(a: Claim, b: Claim) -> bool:
    """Frames are a second apart."""
    return iou(a.box, b.box) > 0.5 and (abs(a.time - b.time) <= 1 or min(a.time, b.time) >= 6.5)


def without_copies(judged: list[Judged]) -> list[Judged]:
    """Each claim that copies none before it."""
    kept: list[Judged] = []
    for one in judged:
        if not any(are_copies(one[0], other) for other, _ in kept):
            kept.append(one)
    return kept


honest = some.map(without_copies)


def r_ser(judged: list[Judged], cfg: SerConfig) -> float:
    """r_SER of a completion with these claims, each of which the referee, if asked, would judge so."""
    spans = [replace(claim, span=(place, place + 1)) for place, (claim, _) in enumerate(judged)]
    verdict_of = dict(zip(spans, (verdict for _, verdict in judged)))
    completion = Completion("", "", tuple(spans), True)
    total = score(completion, [verdict_of[c] for c in claims_to_verify(completion, INFO, cfg)], INFO, cfg)[1]
    assert total is not None
    return total


def placed(judged: list[Judged], added: list[Judged], at: int) -> list[Judged]:
    at = at % (len(judged) + 1)
    return [*judged[:at], *added, *judged[at:]]


@given(honest, configs)
def test_it_is_a_share(judged, cfg):
    assert 0 <= r_ser(judged, cfg) <= 1


@given(honest, st.lists(claims, min_size=1, max_size=12), st.integers(0, 6), configs)
def test_claims_that_the_referee_sees_through_never_pay(judged, spam, at, cfg):
    """Wherever they stand, also where they push good claims over the cap."""
    padded = placed(judged, [(claim, Verdict(0.0, 0.0)) for claim in spam], at)
    assert r_ser(padded, cfg) <= r_ser(judged, cfg) + 1e-9


WORTHLESS = {
    "whole frame": lambda c: replace(c, box=(0.0, 0.0, 56.0, 56.0)),
    "nearly the whole frame": lambda c: replace(c, box=(1.0, 2.0, 55.0, 54.0)),
    "out of frame": lambda c: replace(c, box=(-9.0, 0.0, 30.0, 30.0)),
    "beyond the frame": lambda c: replace(c, box=(60.0, 60.0, 90.0, 90.0)),
    "thinner than a pixel": lambda c: replace(c, box=(10.0, 10.0, 10.4, 50.0)),
    "turned around": lambda c: replace(c, box=(30.0, 30.0, 10.0, 10.0), reason="degenerate box"),
    "no words": lambda c: replace(c, phrase="?!…"),
}


@pytest.mark.parametrize("way", WORTHLESS)
@given(judged=honest, spam=st.lists(claims, min_size=1, max_size=10), at=st.integers(0, 6), cfg=configs)
def test_claims_that_are_worth_nothing_never_pay_whatever_the_referee_would_say(way, judged, spam, at, cfg):
    padded = placed(judged, [(WORTHLESS[way](claim), Verdict(1.0, 1.0)) for claim in spam], at)
    assert r_ser(padded, cfg) <= r_ser(judged, cfg) + 1e-9


def near(claim: Claim, dx: float, dy: float, scale: float, later: float, word: str) -> Claim:
    """A copy: shifted by a share of its sides, scaled, up to a second away, by whatever name."""
    x1, y1, x2, y2 = claim.box
    w, h = x2 - x1, y2 - y1
    x1, y1 = x1 + dx * w, y1 + dy * h
    copy = replace(claim, box=(x1, y1, x1 + scale * w, y1 + scale * h), time=min(claim.time + later, 7.25), phrase=word)
    assert are_copies(claim, copy)
    return copy


# Shares of the sides at which the IoU with the box copied stays above .5, whichever of them go together.
shifts = st.sampled_from([-0.1, 0.0, 0.1])
scales = st.sampled_from([0.9, 1.0, 1.1])
copies = st.tuples(
    st.integers(0, 5),
    st.tuples(shifts, shifts, scales, st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.sampled_from(WORDS)),
    st.integers(0, 12),
    verdicts,
)


@given(honest, st.lists(copies, min_size=1, max_size=6), configs)
def test_copies_never_pay(judged, made, cfg):
    """By synonyms and boxes to all sides, wherever they stand unless they push a claim over the cap, and however much
    better than the claim itself the referee likes them."""
    room = cfg.max_claims >= len(judged) + len(made)
    padded = judged
    for k, how, at, verdict in made:
        padded = placed(padded, [(near(judged[k % len(judged)][0], *how), verdict)], at if room else len(padded))
    assert r_ser(padded, cfg) <= r_ser(judged, cfg) + 1e-9


@given(some, st.lists(copies, max_size=3), configs)
def test_striking_out_the_copies_never_costs(judged, made, cfg):
    """Copies of copies included: what is paid is paid to some of the claims of which none copies another."""
    judged = judged + [(near(judged[k % len(judged)][0], *how), verdict) for k, how, _, verdict in made]
    best = max(
        r_ser(list(kept), cfg)
        for n in range(1, len(judged) + 1)
        for kept in combinations(judged, n)
        if without_copies(list(kept)) == list(kept)
    )
    assert r_ser(judged, cfg) <= best + 1e-9


@given(claims, verdicts, st.integers(1, 20), configs)
def test_one_claim_repeated_is_one_claim(claim, verdict, times_over, cfg):
    assert r_ser([(claim, verdict)] * times_over, cfg) <= r_ser([(claim, verdict)], cfg) + 1e-9


@given(claims, configs)
def test_the_one_claim_strategy_earns_at_most_its_share_of_m_min(claim, cfg):
    assert r_ser([(claim, Verdict(1.0, 1.0))], cfg) <= 1 / cfg.m_min + 1e-9


@given(honest, configs)
def test_a_claim_pays_only_if_it_is_better_than_the_mean(judged, cfg):
    """Beyond m_min the reward is a mean: more claims of the same worth change nothing."""
    *rest, (last, verdict) = judged
    if len(rest) < cfg.m_min or len(judged) > cfg.max_claims:
        return
    before, after = r_ser(rest, cfg), r_ser(judged, cfg)
    own = r_ser([(last, verdict)], replace(cfg, m_min=1))
    assert (after > before + 1e-9) == (own > before + 1e-9)


def test_the_caps_bind():
    """The properties above are not true for want of anything to gain: with distinct good claims all of it is paid."""
    places = [(20.0 * (k % 2), 20.0, 20.0 * (k % 2) + 16.0, 40.0) for k in range(8)]
    good = [(Claim("red circle", place, float(k), (0, 0)), Verdict(1.0, 1.0)) for k, place in enumerate(places)]
    cfg = SerConfig(m_min=2, max_claims=8)
    assert [r_ser(good[:n], cfg) for n in (1, 2, 8)] == [0.5, 1.0, 1.0]
    assert np.isclose(r_ser([*good, *good], cfg), 0.5)


@pytest.mark.parametrize(("shift", "alone", "paid"), [(2, 0.82, 0.5), (3, 0.74, 0.5), (4, 0.67, 1.0)])
def test_two_boxes_to_either_side_of_an_object_are_one_claim_while_either_holds_it(shift, alone, paid):
    """A quarter of each may miss the object, and no more (docs/calibration.md)."""
    left, right = (Claim("red circle", (10.0 + d, 10.0, 30.0 + d, 30.0), 3.0, (0, 0)) for d in (-shift, shift))
    assert np.isclose(iou(left.box, (10.0, 10.0, 30.0, 30.0)), alone, atol=0.005)
    good = Verdict(1.0, 1.0)
    assert r_ser([(left, good), (right, good)], SerConfig()) == paid
