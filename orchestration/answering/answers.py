"""What is known of an answer: completions with their evidence, and the election among them. Pure data and arithmetic.

Boxes are in pixels of the whole frames that the policy is shown; frames are numbered from 0 in the order of the video.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from evaluation.election.ballots import read_ballot
from evaluation.election.candidates import Candidate
from evaluation.election.election import Elected, tally
from evaluation.election.perturbations import View
from evidence.answers import cited_frames
from evidence.geometry import nearest_frame
from evidence.grammar import Completion
from evidence.types import Claim, ClaimScore, FrameInfo
from referee.reward.ser import NO_VERDICT


@dataclass(frozen=True)
class Evidence:
    """A claim with the frame nearest to its time (None without a time), and what the referee found (None where it was
    not asked: without a referee, and about a claim that is not complete)."""

    claim: Claim
    frame: int | None
    score: ClaimScore | None = None


@dataclass(frozen=True)
class Reply:
    """A completion. `cited`: the frames that its `<keyframes>` name, `not_shown`: how many of these citations name no
    frame that was shown. `view`: the input on which it was drawn, of a video with `shown` frames. `prompt_tokens`,
    `tokens`: lengths of its prompt and of itself."""

    text: str
    completion: Completion
    evidence: tuple[Evidence, ...]
    cited: tuple[int, ...]
    not_shown: int
    temperature: float
    view: View
    shown: int
    prompt_tokens: int
    tokens: int
    finish_reason: str

    @property
    def is_judged(self) -> bool:
        return any(evidence.score is not None for evidence in self.evidence)

    @property
    def answer(self) -> str | None:
        """The text between its answer tags, or None."""
        return (self.completion.answer or "").strip() or None

    @property
    def frames(self) -> list[int]:
        """The frames that it cites, by claims or by number."""
        claimed = {evidence.frame for evidence in self.evidence if evidence.frame is not None}
        return sorted(claimed | set(self.cited))

    @property
    def sufficiency(self) -> float | None:
        """Whether its evidence suffices, in [0, 1], for an election's referee check: the mean score of its complete
        claims. None without claims that were judged, or if a verdict is missing. Our reading."""
        scores = [evidence.score for evidence in self.evidence if evidence.score is not None]
        if not scores or any(score.verdict.flag == NO_VERDICT for score in scores):
            return None
        return fmean(score.score for score in scores)


@dataclass(frozen=True)
class Vote:
    """An answer of an election: its votes, and the candidates that gave it."""

    answer: str
    votes: float
    supporters: tuple[int, ...]


@dataclass(frozen=True)
class Outcome:
    """An election among `replies`, which were counted in this order. `begun`: how many were begun to be drawn, those
    that were cancelled included. `sufficiency`: the referee's check of the winner, None if there was none."""

    method: str
    elected: Elected
    replies: tuple[Reply, ...]
    votes: tuple[Vote, ...]
    begun: int
    sufficiency: float | None


@dataclass(frozen=True)
class Answered:
    """The answers to one question. `replies`: as many as were asked for; with an election, the winner alone, or the
    first candidate if no candidate has an answer."""

    question: str
    info: FrameInfo
    replies: tuple[Reply, ...]
    outcome: Outcome | None = None


def gather_evidence(
    completion: Completion, scores: Sequence[ClaimScore], times: Sequence[float]
) -> tuple[Evidence, ...]:
    """The evidence of all claims, in order. scores: of the complete ones among them, or of none."""
    score_of = {(score.claim.span, score.claim.box): score for score in scores}
    return tuple(
        Evidence(
            claim,
            None if claim.time is None else nearest_frame(times, claim.time),
            score_of.get((claim.span, claim.box)),
        )
        for claim in completion.claims
    )


def cited_places(text: str, places: Sequence[int]) -> tuple[tuple[int, ...], int]:
    """(the frames that the text's `<keyframes>` name, the number of invalid citations). places: for each frame that
    was shown, its number in the video."""
    cited = cited_frames(text, len(places))
    return ((), 0) if cited is None else (tuple(sorted(places[index] for index in cited.valid)), cited.invalid)


def count_votes(candidates: Sequence[Candidate], elected: Elected) -> tuple[Vote, ...]:
    """The answers of an election's candidates, most votes first."""
    ballots = [read_ballot(candidate) for candidate in candidates]
    votes = tally(ballots, elected.weights).votes
    counted = []
    for key, sum_of_weights in votes.items():
        supporters = tuple(n for n, ballot in enumerate(ballots) if ballot.key is not None and ballot.key == key)
        counted.append(Vote(ballots[supporters[0]].answer or "", sum_of_weights, supporters))
    return tuple(sorted(counted, key=lambda vote: -vote.votes))
