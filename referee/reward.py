"""The Semantic Evidence Reward: how good is the evidence a completion gives for its answer (domain.md section 1).

    s_m   = combine(rel_m, loc_m) * (1 - lambda_t * tp_m)
    r_SER = sum_m s_m / max(M, M_min)
    r     = w_acc * acc + w_ser * r_SER + w_fmt * format

This is our reading of arXiv 2606.24726; every symbol is a key of `SerConfig`. Pure functions in two steps:
`claims_to_verify` says what the referee has to be asked, `score` and `group_rewards` use what it said.

Guarantees: M counts every complete claim, so that a claim that earns nothing costs something. It earns nothing, and
the referee is not asked, if its box is degenerate, reaches out of the frame or covers too much of it, if its phrase
holds no word, if the temporal penalty takes its whole score (as, at lambda_t = 1, outside the video), or if it comes
after `max_claims` others.
Near-copies of a claim count as that claim, at the lowest score among them. A missing verdict never becomes a number:
the SER term is then left out for the whole group, and counted (promise 8).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from evidence.errors import BadInput
from evidence.geometry import area, clip, iou, nearest_frame
from evidence.grammar import DEGENERATE, Completion, plain_phrase
from evidence.sampling import mean_spacing
from evidence.types import Claim, ClaimScore, FrameInfo, Verdict

NO_VERDICT = "no verdict"
# Why a complete claim is not asked about.
OUT_OF_FRAME = "box out of frame"
WHOLE_FRAME = "box covers the frame"
NO_WORDS = "no words in phrase"
OUTSIDE_VIDEO = "time outside the video"
TOO_LOOSE = "timing too loose"
OVER_CAP = "over the cap of claims"
GUARDS = (DEGENERATE, OUT_OF_FRAME, WHOLE_FRAME, NO_WORDS, OUTSIDE_VIDEO, TOO_LOOSE, OVER_CAP)
EDGE_SLACK = 1.0  # pixels a box may reach out of the frame: rounding, not a mistake

COMBINE: dict[str, Callable[[float, float, float], float]] = {
    "product": lambda rel, loc, w: rel * loc,
    "mean": lambda rel, loc, w: (rel + loc) / 2,
    "min": lambda rel, loc, w: min(rel, loc),
    "weighted": lambda rel, loc, w: w * rel + (1 - w) * loc,
}


@dataclass
class SerConfig:
    """The symbols of the reward. `gate_*`: the SER term is paid only to completions that are right / well formed."""

    combine: str = "product"  # product | mean | min | weighted
    relevance_weight: float = 0.5  # of `weighted` alone
    lambda_t: float = 1.0  # share of a claim's score that loose timing can take
    sigma: float = 1.0  # seconds: how far from a shown frame a time may be
    m_min: int = 2  # claims below which evidence is thin
    max_claims: int = 8
    dedup_iou: float = 0.7
    max_area_share: float = 0.8
    w_acc: float = 1.0
    w_ser: float = 1.0
    w_fmt: float = 1.0
    gate_acc: bool = False
    gate_fmt: bool = False

    def __post_init__(self) -> None:
        if self.combine not in COMBINE:
            raise BadInput(f"reward.combine: {self.combine!r} is none of {', '.join(COMBINE)}")
        for name in ("relevance_weight", "lambda_t", "dedup_iou", "max_area_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadInput(f"reward.{name}: {getattr(self, name)} is not between 0 and 1")
        if self.sigma <= 0:
            raise BadInput(f"reward.sigma: {self.sigma} s is not above 0")
        for name in ("m_min", "max_claims"):
            if getattr(self, name) < 1:
                raise BadInput(f"reward.{name}: {getattr(self, name)} is not at least 1")


@dataclass(frozen=True)
class GroupReward:
    """Rewards of the G completions of one prompt.

    `rewards`: float32 [G]. `terms`: raw values of acc, format and ser, float32 [G] each; ser is NaN where it was left
    out. `evidence`: one ClaimScore per complete claim, in order, per completion. `ser_left_out`: a verdict was
    missing, so no completion of the group has its SER term. `counts`: claims, invalid, asked, loose_time (temporal
    penalty above 0), missing (verdicts), and one `guard: …` per reason in GUARDS for which a claim was not asked.
    """

    rewards: np.ndarray
    terms: dict[str, np.ndarray]
    evidence: tuple[tuple[ClaimScore, ...], ...]
    ser_left_out: bool
    counts: dict[str, int] = field(default_factory=dict)


def temporal_penalty(claim: Claim, info: FrameInfo, sigma: float) -> float:
    """How loose a complete claim's timing is: 1 if any of it lies outside the video, else 1 - (1 - p)(1 - w).

    p = 1 - exp(-d^2 / 2 sigma^2), d the seconds from `time` to the nearest frame shown. w, of an interval alone, is
    its width as a share of the video: a claim about the whole video says nothing of when. Our reading: each takes its
    share of what the other has left, so that a moment is charged p and an interval of width 0 like a moment.
    """
    _, time = _box_and_time(claim)
    if _outside(claim, info):
        return 1.0
    distance = abs(time - info.times[nearest_frame(info.times, time)])
    width = 0.0 if claim.until is None else claim.until - time
    share = width / info.duration if width else 0.0  # an image has no duration
    return 1 - math.exp(-(distance**2) / (2 * sigma**2)) * (1 - share)


def _outside(claim: Claim, info: FrameInfo) -> bool:
    """Whether any of a complete claim's time lies outside the video."""
    _, time = _box_and_time(claim)
    return not 0 <= time <= (time if claim.until is None else claim.until) <= info.duration


def guard(claim: Claim, info: FrameInfo, cfg: SerConfig) -> str | None:
    """Why a complete claim earns nothing whatever the referee would say, or None if it has to be asked."""
    box, _ = _box_and_time(claim)
    width, height = info.size
    inside = clip(box, info.size)
    if claim.reason == DEGENERATE or box[2] - box[0] < 1 or box[3] - box[1] < 1:
        return DEGENERATE
    if (
        min(box[0], box[1]) < -EDGE_SLACK
        or box[2] > width + EDGE_SLACK
        or box[3] > height + EDGE_SLACK
        or inside[2] - inside[0] < 1
        or inside[3] - inside[1] < 1
    ):
        return OUT_OF_FRAME
    if area(inside) > cfg.max_area_share * width * height:
        return WHOLE_FRAME
    if not _name(claim.phrase):
        return NO_WORDS
    if cfg.lambda_t * temporal_penalty(claim, info, cfg.sigma) >= 1:
        return OUTSIDE_VIDEO if _outside(claim, info) else TOO_LOOSE
    return None


def claims_to_verify(completion: Completion, info: FrameInfo, cfg: SerConfig) -> list[Claim]:
    """The claims whose verdict the score depends on, in order: at most `max_claims`."""
    return [claim for claim in complete_claims(completion)[: cfg.max_claims] if guard(claim, info, cfg) is None]


def score(
    completion: Completion, verdicts: Sequence[Verdict | None], info: FrameInfo, cfg: SerConfig
) -> tuple[tuple[ClaimScore, ...], float | None]:
    """The scores of all complete claims, and r_SER in [0, 1], None if a verdict is missing.

    `verdicts` are those of `claims_to_verify(completion, info, cfg)`, in its order. A claim that was not asked has the
    verdict 0, 0 with the guard's name as flag; one without a verdict the flag NO_VERDICT. Raises ValueError if there
    are more or fewer verdicts than claims asked.
    """
    asked = claims_to_verify(completion, info, cfg)
    if len(asked) != len(verdicts):
        raise ValueError(f"{len(verdicts)} verdicts for {len(asked)} claims")
    verdict_of = dict(zip(asked, verdicts))
    scores = []
    for rank, claim in enumerate(complete_claims(completion)):
        penalty = temporal_penalty(claim, info, cfg.sigma)
        flag = OVER_CAP if rank >= cfg.max_claims else guard(claim, info, cfg)
        verdict = Verdict(0.0, 0.0, flag) if flag else verdict_of[claim] or Verdict(0.0, 0.0, NO_VERDICT)
        quality = COMBINE[cfg.combine](verdict.relevance, verdict.localization, cfg.relevance_weight)
        scores.append(ClaimScore(claim, verdict, penalty, quality * (1 - cfg.lambda_t * penalty)))
    if None in verdicts:
        return tuple(scores), None
    capped, over_cap = scores[: cfg.max_claims], scores[cfg.max_claims :]
    distinct = _distinct(capped, info, cfg)
    count = len(distinct) + len(over_cap)
    return tuple(scores), sum(min(s.score for s in copies) for copies in distinct) / max(count, cfg.m_min)


def complete_claims(completion: Completion) -> list[Claim]:
    """The M claims of the formula: those with a phrase, four numbers and a time, degenerate boxes included, since
    writing one must not be cheaper than writing a wrong one."""
    return [claim for claim in completion.claims if claim.valid or claim.reason == DEGENERATE]


def normalised(answer: str) -> str:
    """Case, runs of whitespace and a final full stop do not matter."""
    return " ".join(answer.casefold().split()).removesuffix(".").rstrip()


def accuracy(answer: str | None, truth: str) -> float:
    """1 for the same answer after normalising, else 0."""
    return float(answer is not None and normalised(answer) == normalised(truth))


def format_term(completion: Completion) -> float:
    """1 for a well-formed completion with a valid claim, .5 for a well-formed one without, else 0."""
    if not completion.well_formed:
        return 0.0
    return 1.0 if any(claim.valid for claim in completion.claims) else 0.5


def group_rewards(
    completions: Sequence[Completion],
    verdicts: Sequence[Sequence[Verdict | None]],
    truth: str,
    info: FrameInfo,
    cfg: SerConfig,
) -> GroupReward:
    """Rewards of one prompt's completions; `verdicts[i]` are those of `claims_to_verify(completions[i], info, cfg)`."""
    acc = np.array([accuracy(c.answer, truth) for c in completions], np.float32)
    form = np.array([format_term(c) for c in completions], np.float32)
    scored = [score(c, v, info, cfg) for c, v in zip(completions, verdicts, strict=True)]
    left_out = any(value is None for _, value in scored)
    ser = np.array([np.nan if left_out or value is None else value for _, value in scored], np.float32)
    rewards = cfg.w_acc * acc + cfg.w_fmt * form
    if not left_out:
        gate = (acc if cfg.gate_acc else 1) * (form > 0 if cfg.gate_fmt else 1)
        rewards = rewards + cfg.w_ser * ser * gate
    evidence = tuple(scores for scores, _ in scored)
    return GroupReward(
        rewards=rewards.astype(np.float32),
        terms={"acc": acc, "format": form, "ser": ser},
        evidence=evidence,
        ser_left_out=left_out,
        counts=_counts(completions, verdicts, evidence),
    )


def _counts(
    completions: Sequence[Completion],
    verdicts: Sequence[Sequence[Verdict | None]],
    evidence: Sequence[Sequence[ClaimScore]],
) -> dict[str, int]:
    scores = [s for completion in evidence for s in completion]
    asked = [verdict for completion in verdicts for verdict in completion]
    counts = Counter(
        claims=len(scores),
        invalid=sum(not claim.valid for c in completions for claim in c.claims),
        asked=len(asked),
        missing=asked.count(None),
        loose_time=sum(s.temporal_penalty > 0 for s in scores),
    )
    counts.update(f"guard: {s.verdict.flag}" for s in scores if s.verdict.flag in GUARDS)
    return dict(counts)


def _distinct(scores: Sequence[ClaimScore], info: FrameInfo, cfg: SerConfig) -> list[list[ClaimScore]]:
    """Claims grouped with the first one that they copy: same words, a time within one sampling step, and
    IoU above `dedup_iou`."""
    step = mean_spacing(info.times) if len(info.times) > 1 else info.duration

    def copies(a: Claim, b: Claim) -> bool:
        (box_a, time_a), (box_b, time_b) = _box_and_time(a), _box_and_time(b)
        return _name(a.phrase) == _name(b.phrase) and abs(time_a - time_b) <= step and iou(box_a, box_b) > cfg.dedup_iou

    groups: list[list[ClaimScore]] = []
    for one in scores:
        for group in groups:
            if copies(one.claim, group[0].claim):
                group.append(one)
                break
        else:
            groups.append([one])
    return groups


def _name(phrase: str) -> tuple[str, ...]:
    """The words of a phrase without case, punctuation and article, so that no spelling makes a copy a new claim."""
    words = re.findall(r"\w+", plain_phrase(phrase).casefold())
    return tuple(words[1:] if len(words) > 1 and words[0] in ("a", "an", "the") else words)


def _box_and_time(claim: Claim) -> tuple[tuple[float, float, float, float], float]:
    """Box and time of a complete claim."""
    if claim.box is None or claim.time is None:
        raise ValueError(f"claim at {claim.span} is not complete: {claim.reason}")
    return claim.box, claim.time
