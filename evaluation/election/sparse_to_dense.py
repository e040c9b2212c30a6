"""Sparse-to-dense frames (Video-RTS, arXiv 2507.06485): a few candidates see few frames, and only where they do not
agree are others shown more.

A round is the candidates that were shown equally many frames. It has at least `per_round` candidates; if they agree,
their answer is elected, and if not, the next round is shown `growth` times as many frames. The answer of the last round
is its majority. Candidates of earlier rounds have no vote.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from evaluation.election.ballots import Ballot
from evaluation.election.candidates import MOST_FRAMES
from evaluation.election.election import NeedMore
from evidence.config_checks import require, require_least, require_share
from evidence.errors import BadInput


@dataclass(frozen=True)
class SparseToDense:
    """per_round: candidates of a round (5, as in the released code).
    first_frames, most_frames: frames of the first round, and at most (32 and 128, as in the released code).
    growth: how many times as many frames the next round is shown (2, as in the released code).
    agreement: the share of a round's candidates that must give the same answer (1: all of them, as published).

    Recorded candidates may have been shown any numbers of frames, as long as none is shown fewer than the one before.
    """

    NAME: ClassVar[str] = "sparse_to_dense"
    INPUTS: ClassVar[tuple[str, ...]] = ("frames",)
    TEMPERATURES: ClassVar[tuple[float, ...]] = (1.0,)

    per_round: int = 5
    first_frames: int = 32
    most_frames: int = 128
    growth: int = 2
    agreement: float = 1.0

    def __post_init__(self) -> None:
        require_least(self, 1, "per_round", "first_frames")
        require_least(self, 2, "growth")
        require_least(self, self.first_frames, "most_frames", most=MOST_FRAMES)
        require_share(self, "agreement")
        require(self.agreement > 0, "agreement", self.agreement, "above 0")

    def score(self, ballot: Ballot) -> float:
        """1 with an answer, 0 without."""
        return float(ballot.key is not None)

    def weights(self, ballots: Sequence[Ballot], scores: Sequence[float]) -> list[float]:
        return [score * (_frames(ballot) == _frames(ballots[-1])) for ballot, score in zip(ballots, scores)]

    def more(self, ballots: Sequence[Ballot], scores: Sequence[float]) -> NeedMore | None:
        if not ballots:
            return NeedMore(self.first_frames, self.per_round)
        shown = _frames(ballots[-1])
        if len(ballots) > 1 and shown < _frames(ballots[-2]):
            raise BadInput(
                f"{ballots[-1].candidate.where}: frames = {shown}: must be {_frames(ballots[-2])} or more, as for the "
                "candidate before it; sparse_to_dense takes them from few frames to many"
            )
        last_round = [ballot for ballot in ballots if _frames(ballot) == shown]
        if len(last_round) < self.per_round:
            return NeedMore(shown, self.per_round - len(last_round))
        answers = Counter(ballot.key for ballot in last_round if ballot.key is not None)
        if max(answers.values(), default=0) >= self.agreement * len(last_round) - 1e-9:
            return None
        denser = shown * self.growth
        return NeedMore(denser, self.per_round) if denser <= self.most_frames else None


def _frames(ballot: Ballot) -> int:
    return ballot.candidate.frames or 0
