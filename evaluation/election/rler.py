"""RLER's election by evidence (arXiv 2604.04379; formulas as reported, domain.md section 3).

1. Parse: answer a, cited frames K, thought z and confidence c of each candidate.
2. Score: S = (s_fs + transparency + 1 - rho + c) / 4, the parts being RLER's reward terms (referee/terms/rler); without
   a confidence, the mean of the other three.
3. Group the candidates by answer. Within a group, a candidate's consistency J is the mean Jaccard overlap of its cited
   frames with those of each other supporter, 0 without another. Outliers have no vote.
4. Vote: S * (f + (1 - f) J), f = `uncorroborated`. The answer with the largest sum leads.
5. Stop when the lead, as a share of all votes, is above .08 and the mean confidence above .4, or after 8 candidates.
6. Referee check, once: where it finds the winner's evidence insufficient, its answer's votes are reduced.

The score's formula, the grouping, the thresholds of 5 and the number 8 are as reported. Our reading: how J enters the
vote, what an outlier is, that frames count relative to their number (below), that the lead is a share of the votes,
whose confidence is averaged (the leading answer's supporters; S where none is reported), that there is no stop before
three candidates, one of each of RLER's temperatures, and how the referee reduces votes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import ClassVar

from evaluation.election.ballots import Ballot
from evaluation.election.election import PLACES, Elected, NeedMore, tally
from evidence.config_checks import require_least, require_share
from evidence.types import FrameInfo, Sample
from referee.terms.rler import anti_repetition, frame_sensitive, think_transparency
from referee.terms.view import GroupView

MOST_CANDIDATES = 128  # each is compared with all others, after every candidate that arrives
NO_SAMPLE = Sample(id="", source="", task="", question="", answer="")  # the terms used here do not read it


@dataclass(frozen=True)
class Rler:
    """candidates: how many are drawn at most (8, as reported).
    stop_lead, stop_confidence: what lead and mean confidence must exceed to stop early (.08 and .4, as reported).
    stop_least: no stop before this many candidates (3, our reading).
    think_low, think_high: words of the thought between which its length is normalised (0 and 320, our reading).
    ngram: words in a run that counts as repeated (3, our reading).
    uncorroborated: f, the share of its vote that a candidate keeps if no other supporter cites its frames (.5, our
        reading).
    outlier: a supporter is an outlier if its J is below this share of the group's median J (.5, our reading).
    outlier_group: the fewest supporters among which there are outliers (3, our reading).
    sufficient: a referee's verdict below it multiplies the votes of the winning answer (.5, our reading).
    """

    NAME: ClassVar[str] = "rler"
    INPUTS: ClassVar[tuple[str, ...]] = ("frames",)
    TEMPERATURES: ClassVar[tuple[float, ...]] = (0.2, 0.7, 0.9)  # as reported

    candidates: int = 8
    stop_lead: float = 0.08
    stop_confidence: float = 0.4
    stop_least: int = 3
    think_low: int = 0
    think_high: int = 320
    ngram: int = 3
    uncorroborated: float = 0.5
    outlier: float = 0.5
    outlier_group: int = 3
    sufficient: float = 0.5

    def __post_init__(self) -> None:
        require_least(self, 1, "stop_least", "ngram")
        require_least(self, 1, "candidates", most=MOST_CANDIDATES)
        require_least(self, 0, "think_low")
        require_least(self, self.think_low + 1, "think_high")
        require_least(self, 3, "outlier_group")
        require_share(self, "stop_lead", "stop_confidence", "uncorroborated", "outlier", "sufficient")

    def score(self, ballot: Ballot) -> float:
        """S, in [0, 1]."""
        shown = tuple(map(float, range(ballot.candidate.frames or 0)))
        frames = FrameInfo("", shown, (1, 1), (1, 1), 0.0)
        view = GroupView(NO_SAMPLE, (ballot.candidate.text,), (ballot.completion,), frames)
        parts = [
            *frame_sensitive(view),
            *think_transparency(view, low=self.think_low, high=self.think_high),
            *(1 + value for value in anti_repetition(view, n=self.ngram)),
        ]
        return fmean(parts if ballot.confidence is None else [*parts, ballot.confidence])

    def weights(self, ballots: Sequence[Ballot], scores: Sequence[float]) -> list[float]:
        weights = [0.0] * len(ballots)
        groups: dict[object, list[int]] = {}
        for n, ballot in enumerate(ballots):
            if ballot.key is not None:
                groups.setdefault(ballot.key, []).append(n)
        for group in groups.values():
            supporters = self._without_outliers([(n, ballots[n]) for n in group])
            for (n, _), share in zip(supporters, consistency([ballot for _, ballot in supporters])):
                weights[n] = scores[n] * (self.uncorroborated + (1 - self.uncorroborated) * share)
        return weights

    def more(self, ballots: Sequence[Ballot], scores: Sequence[float]) -> NeedMore | None:
        remaining = self.candidates - len(ballots)
        if remaining <= 0:
            return None
        votes = tally(ballots, self.weights(ballots, scores))
        confident = [
            score if ballot.confidence is None else ballot.confidence
            for ballot, score in zip(ballots, scores)
            if ballot.key is not None and ballot.key == votes.leader
        ]
        if len(ballots) < self.stop_least or not confident:
            return NeedMore(most=remaining)
        stop = votes.margin > self.stop_lead and round(fmean(confident), PLACES) > self.stop_confidence
        return None if stop else NeedMore(most=remaining)

    def reweighed(self, elected: Elected, ballots: Sequence[Ballot], sufficiency: float) -> list[float]:
        """The votes after the referee check. sufficiency: its verdict on the winning candidate's evidence, 0 to 1."""
        winning = None if elected.winner is None else ballots[elected.winner].key
        factor = sufficiency if sufficiency < self.sufficient else 1.0
        return [w * factor if ballot.key == winning else w for ballot, w in zip(ballots, elected.weights)]

    def _without_outliers(self, supporters: list[tuple[int, Ballot]]) -> list[tuple[int, Ballot]]:
        if len(supporters) < self.outlier_group:
            return supporters
        shares = consistency([ballot for _, ballot in supporters])
        least = self.outlier * median(shares)
        return [supporter for supporter, share in zip(supporters, shares) if share >= least]


def consistency(supporters: Sequence[Ballot]) -> list[float]:
    """J of each: the mean overlap of its cited frames with those of each other supporter, 0 without another."""
    overlaps = [[overlap(a, b) for b in supporters if b is not a] for a in supporters]
    return [fmean(others) if others else 0.0 for others in overlaps]


def overlap(a: Ballot, b: Ballot) -> float:
    """The Jaccard overlap of the cited frames, 0 if neither cites one: nothing corroborates nothing.

    Our reading for candidates that were shown different numbers of frames, m < n of the same video: frame k of n is
    compared as frame k m // n of m.
    """
    coarser = min(a.candidate.frames or 0, b.candidate.frames or 0)
    first, second = _at(a, coarser), _at(b, coarser)
    return len(first & second) / len(first | second) if first or second else 0.0


def _at(ballot: Ballot, frames: int) -> frozenset[int]:
    shown = ballot.candidate.frames or 0
    return frozenset(index * frames // shown for index in ballot.cited)
