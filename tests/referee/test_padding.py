"""No way of padding raises r_SER: properties of the pure reward, whatever the referee says of the claims.

A strategy takes an honest completion and adds claims to it. What is added can be worth nothing (then it must not pay),
or copy a claim (then it must not pay even if the referee likes the copy better).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence.grammar import Completion
from evidence.types import Claim, FrameInfo, Verdict
from referee.ser import SerConfig, claims_to_verify, score

INFO = FrameInfo("k", tuple(map(float, range(8))), (56, 56), (112, 112), 7.25)
NUMBERS = ("one", "two", "three", "four", "five", "six")
WORDS = ("red circle", "blue square", "a green triangle")

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
    max_claims=st.integers(1, 8),
)
# Of different things, so that none copies another: a bad copy has something to gain from being crowded out.
honest = st.lists(st.tuples(claims, verdicts), min_size=1, max_size=6).map(
    lambda judged: [(replace(c, phrase=NUMBERS[k]), verdict) for k, (c, verdict) in enumerate(judged)]
)
Judged = tuple[Claim, Verdict]


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


def near(claim: Claim, dx: int, later: float, spelling: int) -> Claim:
    """A near-copy: a pixel aside, up to a second away, spelt another way."""
    x1, y1, x2, y2 = claim.box
    words = claim.phrase.removeprefix("a ")
    spelt = (claim.phrase, f"The {words}", words.upper(), f" {words.replace(' ', '-')}.")[spelling]
    return replace(claim, box=(x1 + dx, y1, x2 + dx, y2), time=min(claim.time + later, 7.25), phrase=spelt)


copies = st.tuples(
    st.integers(0, 5), st.sampled_from([0, 1]), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(0, 3), verdicts
)


@given(honest, st.lists(copies, min_size=1, max_size=8), configs)
def test_near_copies_never_pay_more_than_the_claims_they_copy(judged, made, cfg):
    """However much better than the claim itself the referee likes its copies."""
    added = [(near(judged[k % len(judged)][0], dx, later, spelling), v) for k, dx, later, spelling, v in made]
    assert r_ser([*judged, *added], cfg) <= r_ser(judged, cfg) + 1e-9


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
    good = [(Claim(f"thing {k}", (10.0, 10.0, 30.0, 30.0), float(k), (0, 0)), Verdict(1.0, 1.0)) for k in range(8)]
    cfg = SerConfig(m_min=2, max_claims=8)
    assert [r_ser(good[:n], cfg) for n in (1, 2, 8)] == [0.5, 1.0, 1.0]
    assert np.isclose(r_ser([*good, *good], cfg), 0.5)


@pytest.mark.parametrize(("dedup_iou", "paid"), [(0.7, 1.0), (0.5, 0.5)])
def test_two_boxes_to_either_side_of_an_object_are_two_claims_unless_dedup_iou_is_lower(dedup_iou, paid):
    """What the rule for copies lets through (docs/calibration.md): each has IoU .82 with the object between them, and
    .67 with the other."""
    left, right = (Claim("red circle", (10.0 + d, 10.0, 30.0 + d, 30.0), 3.0, (0, 0)) for d in (-2, 2))
    good = Verdict(1.0, 1.0)
    assert r_ser([(left, good), (right, good)], SerConfig(dedup_iou=dedup_iou)) == paid
