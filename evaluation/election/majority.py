"""Majority of a fixed number of candidates: one vote each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from evaluation.election.ballots import Ballot
from evaluation.election.election import MOST_CANDIDATES, NeedMore, tally
from evidence.config_checks import require_least


@dataclass(frozen=True)
class Majority:
    """candidates: how many are drawn at most (8, the number that RLER and Open-o3-Video draw).
    stop_decided: stop as soon as the remaining candidates cannot change the answer. It is the same then, and `margin`
        is that of the candidates drawn.
    """

    NAME: ClassVar[str] = "majority"
    INPUTS: ClassVar[tuple[str, ...]] = ()
    TEMPERATURES: ClassVar[tuple[float, ...]] = (1.0,)

    candidates: int = 8
    stop_decided: bool = False

    def __post_init__(self) -> None:
        require_least(self, 1, "candidates", most=MOST_CANDIDATES)

    def score(self, ballot: Ballot) -> float:
        """1 with an answer, 0 without."""
        return float(ballot.key is not None)

    def weights(self, ballots: Sequence[Ballot], scores: Sequence[float]) -> list[float]:
        return list(scores)

    def more(self, ballots: Sequence[Ballot], scores: Sequence[float]) -> NeedMore | None:
        outstanding = self.candidates - len(ballots)
        decided = self.stop_decided and tally(ballots, self.weights(ballots, scores)).is_decided(outstanding)
        return None if decided or outstanding <= 0 else NeedMore(most=outstanding)
