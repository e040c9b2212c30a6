"""Padding a completion with claims never raises r_SER: properties of the pure reward that hold for any verdicts.

A strategy takes an honest completion, in which no claim copies another, and inserts claims anywhere. The inserted
claims are worthless (then they must not pay), or copies (then they must not pay even if the referee prefers the copy).
In general, a completion without its copies earns at least as much.
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

JudgedClaims = tuple[Claim, Verdict]

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
    """Whether two claims are copies, given INFO's frames one second apart."""
    return iou(a.box, b.box) > 0.5 and (abs(a.time - b.time) <= 1 or min(a.time, b.time) >= 6.5)


def without_copies(judged: list[JudgedClaims]) -> list[JudgedClaims]:
    """The claims that copy no kept claim before them."""
    kept: list[JudgedClaims] = []
    for claim, verdict in judged:
        if not any(are_copies(claim, other) for other, _ in kept):
            kept.append((claim, verdict))
    return kept


honest = some.map(without_copies)


def r_ser(judged: list[JudgedClaims], cfg: SerConfig) -> float:
    """r_SER of a completion with these claims, given the verdict of each."""
    spans = [replace(claim, span=(place, place + 1)) for place, (claim, _) in enumerate(judged)]
    verdict_of = dict(zip(spans, (verdict for _, verdict in judged)))
    completion = Completion("", "", tuple(spans), True)
    total = score(completion, [verdict_of[c] for c in claims_to_verify(completion, INFO, cfg)], INFO, cfg)[1]
    assert total is not None
    return total


def placed(judged: list[JudgedClaims], added: list[JudgedClaims], at: int) -> list[JudgedClaims]:
    at = at % (len(judged) + 1)
    return [*judged[:at], *added, *judged[at:]]


@given(honest, configs)
def test_r_ser_is_between_0_and_1(judged, cfg):
    assert 0 <= r_ser(judged, cfg) <= 1


@given(honest, st.lists(claims, min_size=1, max_size=12), st.integers(0, 6), configs)
def test_claims_with_verdict_0_never_pay(judged, spam, at, cfg):
    """At any position, including those that push good claims over the cap."""
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
def test_guarded_claims_never_pay_whatever_their_verdict(way, judged, spam, at, cfg):
    padded = placed(judged, [(WORTHLESS[way](claim), Verdict(1.0, 1.0)) for claim in spam], at)
    assert r_ser(padded, cfg) <= r_ser(judged, cfg) + 1e-9


def near(claim: Claim, dx: float, dy: float, scale: float, later: float, word: str) -> Claim:
    """A copy of `claim`: shifted by shares of its sides, scaled, up to a second later, with another phrase."""
    x1, y1, x2, y2 = claim.box
    w, h = x2 - x1, y2 - y1
    x1, y1 = x1 + dx * w, y1 + dy * h
    copy = replace(claim, box=(x1, y1, x1 + scale * w, y1 + scale * h), time=min(claim.time + later, 7.25), phrase=word)
    assert are_copies(claim, copy)
    return copy


# Shifts and scales for which the IoU with the copied box stays above .5 in every combination.
shifts = st.sampled_from([-0.1, 0.0, 0.1])
scales = st.sampled_from([0.9, 1.0, 1.1])
copies = st.tuples(
    st.integers(0, 5),
    st.tuples(shifts, shifts, scales, st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.sampled_from(WORDS)),
    st.integers(0, 12),
    verdicts,
)


@given(honest, st.lists(copies, min_size=1, max_size=6), configs)
def test_copies_never_pay(judged, added, cfg):
    """With synonyms and boxes shifted to any side, at any position that pushes no claim over the cap, and however much
    the referee prefers them to the original."""
    fits = cfg.max_claims >= len(judged) + len(added)
    padded = judged
    for k, how, at, verdict in added:
        padded = placed(padded, [(near(judged[k % len(judged)][0], *how), verdict)], at if fits else len(padded))
    assert r_ser(padded, cfg) <= r_ser(judged, cfg) + 1e-9


@given(some, st.lists(copies, max_size=3), configs)
def test_removing_copies_never_costs(judged, added, cfg):
    """Copies of copies included: some subset without copies earns at least as much as the whole."""
    judged = judged + [(near(judged[k % len(judged)][0], *how), verdict) for k, how, _, verdict in added]
    best = max(
        r_ser(list(kept), cfg)
        for n in range(1, len(judged) + 1)
        for kept in combinations(judged, n)
        if without_copies(list(kept)) == list(kept)
    )
    assert r_ser(judged, cfg) <= best + 1e-9


@given(claims, verdicts, st.integers(1, 20), configs)
def test_repeating_a_claim_never_pays(claim, verdict, times_over, cfg):
    assert r_ser([(claim, verdict)] * times_over, cfg) <= r_ser([(claim, verdict)], cfg) + 1e-9


@given(claims, configs)
def test_a_single_claim_earns_at_most_1_over_m_min(claim, cfg):
    assert r_ser([(claim, Verdict(1.0, 1.0))], cfg) <= 1 / cfg.m_min + 1e-9


@given(honest, configs)
def test_a_claim_pays_only_if_it_is_better_than_the_mean(judged, cfg):
    """Beyond m_min the reward is a mean, so more claims of equal score change nothing."""
    *rest, (last, verdict) = judged
    if len(rest) < cfg.m_min or len(judged) > cfg.max_claims:
        return
    before, after = r_ser(rest, cfg), r_ser(judged, cfg)
    own = r_ser([(last, verdict)], replace(cfg, m_min=1))
    assert (after > before + 1e-9) == (own > before + 1e-9)


def test_distinct_good_claims_earn_the_full_reward():
    """The properties above do not hold trivially: there is a reward to gain."""
    places = [(20.0 * (k % 2), 20.0, 20.0 * (k % 2) + 16.0, 40.0) for k in range(8)]
    good = [(Claim("red circle", place, float(k), (0, 0)), Verdict(1.0, 1.0)) for k, place in enumerate(places)]
    cfg = SerConfig(m_min=2, max_claims=8)
    assert [r_ser(good[:n], cfg) for n in (1, 2, 8)] == [0.5, 1.0, 1.0]
    assert np.isclose(r_ser([*good, *good], cfg), 0.5)


@pytest.mark.parametrize(("shift", "alone", "paid"), [(2, 0.82, 0.5), (3, 0.74, 0.5), (4, 0.67, 1.0)])
def test_two_boxes_to_either_side_of_an_object_are_copies_if_both_fit_it(shift, alone, paid):
    """They count as one claim as long as each fits the object with an IoU above .7 (docs/calibration.md)."""
    left, right = (Claim("red circle", (10.0 + d, 10.0, 30.0 + d, 30.0), 3.0, (0, 0)) for d in (-shift, shift))
    assert np.isclose(iou(left.box, (10.0, 10.0, 30.0, 30.0)), alone, atol=0.005)
    good = Verdict(1.0, 1.0)
    assert r_ser([(left, good), (right, good)], SerConfig()) == paid
