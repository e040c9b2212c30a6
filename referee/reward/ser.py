"""The Semantic Evidence Reward (SER): the quality of the evidence a completion gives for its answer (domain.md 1).

    s_m   = combine(rel_m, loc_m) * (1 - lambda_t * tp_m)
    r_SER = sum_m s_m / max(M, M_min)

This is our reading of arXiv 2606.24726; every symbol is a key of `SerConfig`. Pure functions in two steps:
`claims_to_verify` lists the claims to ask the referee about, `score` computes the reward from its verdicts; `Ser`
combines both as a reward term.

Guarantees: M counts every complete claim, so a claim that earns nothing lowers the reward. A claim earns nothing, and
the referee is not asked, if its box is degenerate, leaves the frame or covers too much of it, if its phrase contains
no word, if the temporal penalty takes its whole score (with lambda_t = 1, outside the video), or if `max_claims` claims
precede it.
Among claims that are copies of each other, by place and time whatever they name, one counts; the choice is the one
that earns least. A missing verdict never becomes a number.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from evidence.config_checks import require, require_above_zero, require_least, require_one_of, require_share
from evidence.geometry import area, clip, iou, nearest_frame
from evidence.grammar import DEGENERATE, Completion, plain_phrase
from evidence.sampling import mean_spacing
from evidence.types import Claim, ClaimScore, FrameInfo, Sample, Verdict
from referee.terms.view import GroupView

Spans = Sequence[tuple[float, float]]

NO_VERDICT = "no verdict"
# Reasons why the referee is not asked about a complete claim.
OUT_OF_FRAME = "box out of frame"
WHOLE_FRAME = "box covers the frame"
NO_WORDS = "no words in phrase"
OUTSIDE_VIDEO = "time outside the video"
TOO_LOOSE = "timing too loose"
OVER_CAP = "over the cap of claims"
GUARDS = (DEGENERATE, OUT_OF_FRAME, WHOLE_FRAME, NO_WORDS, OUTSIDE_VIDEO, TOO_LOOSE, OVER_CAP)
TIMINGS = ("shown", "labels", "neighbour")
EDGE_SLACK = 1.0  # pixels by which a box may leave the frame: rounding, not a mistake
# Choosing among copies takes up to 3^(claims / 3) tries, and the policy that writes the claims is adversarial.
MOST_CLAIMS = 24

COMBINE: dict[str, Callable[[float, float, float], float]] = {
    "product": lambda rel, loc, w: rel * loc,
    "mean": lambda rel, loc, w: (rel + loc) / 2,
    "min": lambda rel, loc, w: min(rel, loc),
    "weighted": lambda rel, loc, w: w * rel + (1 - w) * loc,
}


@dataclass
class SerConfig:
    """The symbols of the term.

    combine: how a claim's relevance and localization become one number: product, mean, min, or weighted by
        relevance_weight, which nothing else uses.
    relevance_weight: share of the relevance.
    lambda_t: share of a claim's score that loose timing can take.
    sigma: width of the tolerance around a shown frame or a label, seconds.
    m_min: least divisor of the mean over claims; with fewer claims the full reward cannot be earned.
    max_claims: a completion's later claims earn nothing.
    max_area_share: a box that covers a larger share of the frame earns nothing.
    timing: the reference of the temporal penalty. `shown` needs no label: the nearest frame that the policy was shown.
        `labels`: the sample's `label_spans`; like `shown` for a sample without any.
        `neighbour`: like `shown`, and each claim is also verified in the next frame: a claim that holds there as well
        is loosely timed.
    dedup_iou: two claims with a larger IoU, and with times within one sampling step, are copies. Two boxes that both
        have an IoU above (1 + dedup_iou) / 2 with a third always are, since 1 - IoU is a metric.
    """

    combine: str = "product"
    relevance_weight: float = 0.5
    lambda_t: float = 1.0
    timing: str = "shown"
    sigma: float = 1.0
    m_min: int = 2
    max_claims: int = 8
    dedup_iou: float = 0.5
    max_area_share: float = 0.8

    def __post_init__(self) -> None:
        require_one_of(self, COMBINE, "combine")
        require_one_of(self, TIMINGS, "timing")
        require_share(self, "relevance_weight", "lambda_t", "dedup_iou", "max_area_share")
        require_above_zero(self, "sigma")
        require_least(self, 1, "m_min", "max_claims")
        require(self.max_claims <= MOST_CLAIMS, "max_claims", self.max_claims, f"{MOST_CLAIMS} or less")


def label_spans(sample: Sample) -> Spans:
    """The labelled times of the evidence, in seconds: the true spans, else the key frames, else ()."""
    return sample.spans or tuple((key.time, key.time) for key in sample.key_frames)


def temporal_penalty(claim: Claim, info: FrameInfo, cfg: SerConfig, labels: Spans = ()) -> float:
    """The looseness of a complete claim's timing: 1 if it lies partly outside the video, else 1 - (1 - p)(1 - w).

    p = 1 - exp(-d^2 / 2 sigma^2), where d is the distance in seconds from `time` to the nearest shown frame or, with
    `timing` labels, to the nearest of `labels`. w is the width of an interval as a share of the video, 0 for a moment:
    a claim about the whole video gives no time at all. Our reading: each factor takes its share of what the other
    leaves, so a moment is charged p, and an interval of width 0 is charged like a moment.
    """
    _, time = _box_and_time(claim)
    if _outside(claim, info):
        return 1.0
    if cfg.timing == "labels" and labels:
        distance = min(max(start - time, 0.0, time - end) for start, end in labels)
    else:
        distance = abs(time - info.times[nearest_frame(info.times, time)])
    width = 0.0 if claim.until is None else claim.until - time
    share = width / info.duration if width else 0.0  # an image has no duration
    return 1 - math.exp(-(distance**2) / (2 * cfg.sigma**2)) * (1 - share)


def _outside(claim: Claim, info: FrameInfo) -> bool:
    """Whether a complete claim's time lies partly outside the video."""
    _, time = _box_and_time(claim)
    return not 0 <= time <= (time if claim.until is None else claim.until) <= info.duration


def guard(claim: Claim, info: FrameInfo, cfg: SerConfig, labels: Spans = ()) -> str | None:
    """The reason why a complete claim earns nothing whatever its verdict, or None if the referee must be asked."""
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
    if not any(map(str.isalnum, plain_phrase(claim.phrase))):
        return NO_WORDS
    if cfg.lambda_t * temporal_penalty(claim, info, cfg, labels) >= 1:
        return OUTSIDE_VIDEO if _outside(claim, info) else TOO_LOOSE
    return None


def claims_to_verify(completion: Completion, info: FrameInfo, cfg: SerConfig, labels: Spans = ()) -> list[Claim]:
    """The claims to ask the referee about, in order: those whose verdict the score depends on, at most `max_claims`;
    with `timing` neighbour each is followed by the same claim about the next frame."""
    return [
        variant for claim in _unguarded(completion, info, cfg, labels) for variant in _with_neighbour(claim, info, cfg)
    ]


def score(
    completion: Completion, verdicts: Sequence[Verdict | None], info: FrameInfo, cfg: SerConfig, labels: Spans = ()
) -> tuple[tuple[ClaimScore, ...], float | None]:
    """The scores of all complete claims, and r_SER in [0, 1] (None if a verdict is missing).

    `verdicts` are those of `claims_to_verify` with the same arguments, in its order. A claim that was not verified has
    the verdict 0, 0 with the guard's reason as flag; one without a verdict has the flag NO_VERDICT. Raises ValueError
    if the numbers of verdicts and of claims to verify differ.
    """
    to_verify = claims_to_verify(completion, info, cfg, labels)
    if len(to_verify) != len(verdicts):
        raise ValueError(f"{len(verdicts)} verdicts for {len(to_verify)} claims")
    remaining = iter(verdicts)
    verdicts_of = {
        claim: [next(remaining) for _ in _with_neighbour(claim, info, cfg)]
        for claim in _unguarded(completion, info, cfg, labels)
    }
    scores = []
    for rank, claim in enumerate(complete_claims(completion)):
        flag = OVER_CAP if rank >= cfg.max_claims else guard(claim, info, cfg, labels)
        penalty = temporal_penalty(claim, info, cfg, labels)
        if flag or None in verdicts_of[claim]:
            scores.append(ClaimScore(claim, Verdict(0.0, 0.0, flag or NO_VERDICT), penalty, 0.0))
            continue
        verdict, *neighbour = (v for v in verdicts_of[claim] if v is not None)
        quality = _quality(verdict, cfg)
        if neighbour and quality > 0:
            # Our reading of the 'neighbour' variant: the share of the claim's quality that the next frame has as well.
            penalty = 1 - (1 - penalty) * (1 - min(1.0, _quality(neighbour[0], cfg) / quality))
        scores.append(ClaimScore(claim, verdict, penalty, quality * (1 - cfg.lambda_t * penalty)))
    if None in verdicts:
        return tuple(scores), None
    return tuple(scores), _total(scores, info, cfg)


def complete_claims(completion: Completion) -> list[Claim]:
    """The M claims of the formula: those with a phrase, four numbers and a time. Degenerate boxes are included, since
    writing one must not be cheaper than writing a wrong box."""
    return [claim for claim in completion.claims if claim.valid or claim.reason == DEGENERATE]


@dataclass
class Ser(SerConfig):
    """SER as a reward term: r_SER of each completion, NaN where a verdict is missing."""

    needs = frozenset({"frames", "verdicts"})

    def claims_to_verify(self, completion: Completion, sample: Sample, info: FrameInfo) -> list[Claim]:
        """The claims that a view's `verdicts` must judge; see the function of the same name."""
        return claims_to_verify(completion, info, self, label_spans(sample))

    def evidence(self, view: GroupView) -> list[tuple[tuple[ClaimScore, ...], float | None]]:
        """Per completion the scores of its claims, and r_SER; see `score`. Without frames: no scores and None."""
        if view.frames is None:
            return [((), None)] * len(view.completions)
        labels = label_spans(view.sample)
        return [
            score(completion, verdicts, view.frames, self, labels)
            for completion, verdicts in zip(view.completions, view.verdicts, strict=True)
        ]

    def __call__(self, view: GroupView) -> list[float]:
        return [math.nan if total is None else total for _, total in self.evidence(view)]


def claim_counts(
    completions: Sequence[Completion],
    verdicts: Sequence[Sequence[Verdict | None]],
    evidence: Sequence[Sequence[ClaimScore]],
) -> dict[str, int]:
    """Counts over the completions: claims (complete ones), invalid, asked, missing (verdicts), loose_time (temporal
    penalty above 0), and `guard: REASON` for each reason in GUARDS for which a claim was not verified."""
    scores = [s for completion in evidence for s in completion]
    all_verdicts = [verdict for completion in verdicts for verdict in completion]
    counts = Counter(
        claims=len(scores),
        invalid=sum(not claim.valid for c in completions for claim in c.claims),
        asked=len(all_verdicts),
        missing=all_verdicts.count(None),
        loose_time=sum(s.temporal_penalty > 0 for s in scores),
    )
    counts.update(f"guard: {s.verdict.flag}" for s in scores if s.verdict.flag in GUARDS)
    return dict(counts)


def _unguarded(completion: Completion, info: FrameInfo, cfg: SerConfig, labels: Spans) -> list[Claim]:
    """The claims to verify, without neighbours."""
    claims = complete_claims(completion)[: cfg.max_claims]
    return [claim for claim in claims if guard(claim, info, cfg, labels) is None]


def _with_neighbour(claim: Claim, info: FrameInfo, cfg: SerConfig) -> Iterator[Claim]:
    yield claim
    if cfg.timing == "neighbour" and len(info.times) > 1:
        frame = nearest_frame(info.times, _box_and_time(claim)[1])
        neighbour = frame + 1 if frame + 1 < len(info.times) else frame - 1
        yield replace(claim, time=info.times[neighbour], until=None)


def _quality(verdict: Verdict, cfg: SerConfig) -> float:
    return COMBINE[cfg.combine](verdict.relevance, verdict.localization, cfg.relevance_weight)


def _total(scores: Sequence[ClaimScore], info: FrameInfo, cfg: SerConfig) -> float:
    """r_SER from the scores of all complete claims: the minimum over all ways to remove copies until no two remaining
    claims are copies. So no copy of another claim raises it, nor does a chain of copies whose ends are not copies of
    each other."""
    paid = [claim_score.score for claim_score in scores[: cfg.max_claims]]
    claims = [claim_score.claim for claim_score in scores[: cfg.max_claims]]
    over_cap, capped = len(scores) - len(claims), range(len(claims))
    same = [{j for j in capped if i == j or _copies(claims[i], claims[j], info, cfg)} for i in capped]

    def least(left: set[int], earned: float, kept: int) -> float:
        if not left:
            return earned / max(kept + over_cap, cfg.m_min)
        # Every way keeps this claim or one of its copies; the fewest copies give the fewest branches.
        pivot = min(left, key=lambda i: len(same[i] & left))
        return min(least(left - same[i], earned + paid[i], kept + 1) for i in same[pivot] & left)

    return least(set(capped), 0.0, 0)


def _copies(a: Claim, b: Claim, info: FrameInfo, cfg: SerConfig) -> bool:
    """Whether two complete claims are about the same place (IoU above `dedup_iou`) at the same time (within one
    sampling step, or judged on the same frame). Phrases are ignored: they are free text of the policy."""
    (box_a, time_a), (box_b, time_b) = _box_and_time(a), _box_and_time(b)
    if iou(box_a, box_b) <= cfg.dedup_iou:
        return False
    step = mean_spacing(info.times) if len(info.times) > 1 else info.duration
    # However far apart two times are, one frame is one piece of evidence: all times after the last frame share it.
    same_frame = nearest_frame(info.times, time_a) == nearest_frame(info.times, time_b)
    return same_frame or abs(time_a - time_b) <= step


def _box_and_time(claim: Claim) -> tuple[tuple[float, float, float, float], float]:
    """Box and time of a complete claim."""
    if claim.box is None or claim.time is None:
        raise ValueError(f"claim at {claim.span} is not complete: {claim.reason}")
    return claim.box, claim.time
