"""Open-o3-Video's confidence voting (arXiv 2510.20579, section on test-time scaling; domain.md section 2).

The model itself scores, for each claim, the crop that the claim cuts out of its frame: 0, 1 or 2 for its relevance to
the question. A candidate's vote is the mean value of its crops, as in the paper. The released code asks once about all
crops of a candidate: record that reply as a list of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

from evaluation.election.ballots import Ballot
from evaluation.election.election import MOST_CANDIDATES, NeedMore, tally
from evidence.config_checks import require_least, require_share


@dataclass(frozen=True)
class OpenO3:
    """candidates: how many are drawn (8).
    relevant, partly, irrelevant: the value of a crop scored 2 (1), 1 (.6) and 0 (.2); of an unreadable reply, too, the
        last. It is also the vote of a candidate without crops or with too many.
    most_crops: more crops than this (10) are too many.
    without_thought: the vote of a candidate without a closed thought (0, as in the released code).
    stop_decided: stop as soon as the remaining candidates cannot change the answer (our addition).
    """

    NAME: ClassVar[str] = "open_o3"
    INPUTS: ClassVar[tuple[str, ...]] = ("crop_scores",)
    TEMPERATURES: ClassVar[tuple[float, ...]] = (1.0,)

    candidates: int = 8
    relevant: float = 1.0
    partly: float = 0.6
    irrelevant: float = 0.2
    most_crops: int = 10
    without_thought: float = 0.0
    stop_decided: bool = False

    def __post_init__(self) -> None:
        require_least(self, 1, "candidates", most=MOST_CANDIDATES)
        require_least(self, 1, "most_crops")
        require_share(self, "relevant", "partly", "irrelevant", "without_thought")

    def score(self, ballot: Ballot) -> float:
        """The candidate's vote, if it has an answer."""
        crops = ballot.candidate.crop_scores or ()
        if ballot.completion.think is None:
            return self.without_thought
        if not 1 <= len(crops) <= self.most_crops:
            return self.irrelevant
        values: dict[int | None, float] = {2: self.relevant, 1: self.partly}
        return fmean(values.get(crop, self.irrelevant) for crop in crops)

    def weights(self, ballots: Sequence[Ballot], scores: Sequence[float]) -> list[float]:
        return [score if ballot.key is not None else 0.0 for ballot, score in zip(ballots, scores)]

    def more(self, ballots: Sequence[Ballot], scores: Sequence[float]) -> NeedMore | None:
        remaining = self.candidates - len(ballots)
        outstanding = remaining * max(self.relevant, self.partly, self.irrelevant, self.without_thought)
        decided = self.stop_decided and tally(ballots, self.weights(ballots, scores)).is_decided(outstanding)
        return None if decided or remaining <= 0 else NeedMore(most=remaining)
