"""Self-certainty with Borda voting (Kang, Zhao and Song, arXiv 2502.18581).

A candidate's certainty is the mean over its n tokens of the divergence of the model's distribution p from the uniform
one over the V tokens of the vocabulary, KL(U || p):

    -1/(n V) sum_i sum_j log(V p_ij)

Of N candidates the most certain has rank 1, and rank r has (N - r + 1)^power votes for its answer.

Our reading for what a recording usually holds instead of whole distributions: with the K most likely tokens, V = K and
the sum is over them; with the drawn token's log-probability alone, certainty is its mean over the tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

from evaluation.election.ballots import Ballot
from evaluation.election.candidates import Candidate
from evaluation.election.election import MOST_CANDIDATES, NeedMore
from evidence.config_checks import require, require_least
from evidence.errors import BadInput

MOST_POWER = 32  # candidates ** power stays far below the largest float; at this power the most certain one decides


@dataclass(frozen=True)
class SelfCertainty:
    """candidates: how many are drawn (8, our choice).
    power: of the votes by rank (.5, the released code's default). 0 is the majority; the larger, the more the most
        certain candidate decides alone.
    """

    NAME: ClassVar[str] = "self_certainty"
    INPUTS: ClassVar[tuple[str, ...]] = ("logprobs",)
    TEMPERATURES: ClassVar[tuple[float, ...]] = (1.0,)

    candidates: int = 8
    power: float = 0.5

    def __post_init__(self) -> None:
        require_least(self, 1, "candidates", most=MOST_CANDIDATES)
        require(0 <= self.power <= MOST_POWER, "power", self.power, f"between 0 and {MOST_POWER}")

    def score(self, ballot: Ballot) -> float:
        """The candidate's certainty."""
        return certainty(ballot.candidate.logprobs or (0.0,))

    def weights(self, ballots: Sequence[Ballot], scores: Sequence[float]) -> list[float]:
        """Candidates without an answer are ranked, too. Of equally certain ones the earlier has the better rank."""
        votes = [0.0] * len(ballots)
        for place, n in enumerate(sorted(range(len(ballots)), key=lambda n: -scores[n])):
            if ballots[n].key is not None:
                votes[n] = float(len(ballots) - place) ** self.power
        return votes

    def more(self, ballots: Sequence[Ballot], scores: Sequence[float]) -> NeedMore | None:
        if ballots:
            _require_comparable(ballots[0].candidate, ballots[-1].candidate)
        remaining = self.candidates - len(ballots)
        return NeedMore(most=remaining) if remaining > 0 else None


def certainty(logprobs: tuple[float, ...] | tuple[tuple[float, ...], ...]) -> float:
    """The self-certainty of a completion with these `Candidate.logprobs`. Lists of a whole vocabulary give the paper's
    value, 0 for uniform distributions."""
    return fmean(-fmean(token) - math.log(len(token)) if isinstance(token, tuple) else token for token in logprobs)


def _require_comparable(first: Candidate, other: Candidate) -> None:
    """Raises BadInput unless both have log-probabilities of equally many tokens at each place."""
    recorded, recorded_first = (_per_token(candidate) for candidate in (other, first))
    if recorded != recorded_first:
        raise BadInput(
            f"{other.where}: logprobs: has {recorded} for each token, and {first.where} has {recorded_first}; record "
            "all candidates of a question alike, or their certainty cannot be compared"
        )


def _per_token(candidate: Candidate) -> str:
    token = (candidate.logprobs or (0.0,))[0]
    return f"a list of {len(token)}" if isinstance(token, tuple) else "a number"
