"""Elections: candidates of one question arrive one by one, until a decision says that one has won.

    election = Election(Rler())
    while isinstance(election.decision, NeedMore):
        election.add(…)      # draw the next candidate
    election.decision.answer

Guarantees:
- a decision depends on the candidates up to it and on their order, and on nothing else; `elect` on the whole list
  gives the same as adding them one by one;
- once an election has stopped, further candidates change nothing, so a caller may cancel those that are being drawn;
- a candidate without an answer has no vote, and an answer is never made up: `answer` is None if no candidate has one;
- of answers with equal votes, the one that was given first wins. Votes are compared to nine decimal places.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from evaluation.election.ballots import Ballot, read_ballot
from evaluation.election.candidates import Candidate, require_inputs

PLACES = 9  # decimal places in which votes, leads and means are compared: the last bits of sums are arbitrary
MOST_CANDIDATES = 1000  # of a question: far more than anyone draws, and counted in a moment
# Judges in [0, 1] whether a candidate's evidence suffices for its answer; None if there is no verdict.
RefereeCheck = Callable[[Candidate], float | None]


@dataclass(frozen=True)
class NeedMore:
    """The election goes on. frames: how many the next candidates should show; None if it does not matter. most: how
    many more may count before another number of frames is wanted or the election ends: more need not be drawn."""

    frames: int | None = None
    most: int = 1


@dataclass(frozen=True)
class Elected:
    """The result of an election.

    answer: as the winning candidate wrote it; None if no candidate has an answer.
    winner: index of the candidate with the largest vote among those that gave the answer, the first of equal ones.
    scores: the method's score of each candidate, in their order. weights: the vote of each.
    used: the number of candidates that the decision rests on.
    margin: the lead of the answer over the next one, as a share of all votes: 1 if there is no other, 0 for a tie or
        if there are no votes.
    """

    answer: str | None
    winner: int | None
    scores: tuple[float, ...]
    weights: tuple[float, ...]
    used: int
    margin: float


Decision = NeedMore | Elected


@dataclass(frozen=True)
class Tally:
    """Votes per answer key, in the order in which the answers were first given."""

    votes: dict[Hashable, float]

    @property
    def leader(self) -> Hashable | None:
        """The key of the leading answer; None without answers."""
        return max(self.votes, key=lambda key: self.votes[key]) if self.votes else None  # the first of equal ones

    @property
    def margin(self) -> float:
        """As `Elected.margin`."""
        first, second, *_ = [*sorted(self.votes.values(), reverse=True), 0.0, 0.0]
        total = math.fsum(self.votes.values())
        return round((first - second) / total, PLACES) if total else 0.0

    def is_decided(self, outstanding: float) -> bool:
        """Whether the leader wins even if one other answer, new or not, gets all `outstanding` votes."""
        if not self.votes or self.votes[self.leader] < outstanding:
            return False
        with_all = (Tally({**self.votes, key: round(votes + outstanding, PLACES)}) for key, votes in self.votes.items())
        return all(tally.leader == self.leader for tally in with_all)


def tally(ballots: Sequence[Ballot], weights: Sequence[float]) -> Tally:
    """The sum of the weights for each answer. Candidates without an answer are left out."""
    of_key: dict[Hashable, list[float]] = {}
    for ballot, weight in zip(ballots, weights):
        if ballot.key is not None:
            of_key.setdefault(ballot.key, []).append(weight)
    return Tally({key: round(math.fsum(given), PLACES) for key, given in of_key.items()})


def outcome(ballots: Sequence[Ballot], scores: Sequence[float], weights: Sequence[float]) -> Elected:
    """The result if the election ends with these candidates. scores, weights: one for each."""
    votes = tally(ballots, weights)
    supporters = [n for n, ballot in enumerate(ballots) if ballot.key is not None and ballot.key == votes.leader]
    winner = max(supporters, key=lambda n: weights[n], default=None)  # the first of equal ones
    return Elected(
        answer=None if winner is None else ballots[winner].answer,
        winner=winner,
        scores=tuple(scores),
        weights=tuple(weights),
        used=len(ballots),
        margin=votes.margin,
    )


class Method(Protocol):
    """How candidates are scored, weighed and counted, and when enough have arrived. A config section: every constant
    is a key.

    NAME: by which users choose it. INPUTS: what each candidate must have, names from candidates.INPUTS. TEMPERATURES:
    at which its candidates are drawn, in turn, unless a config says otherwise.
    """

    NAME: ClassVar[str]
    INPUTS: ClassVar[tuple[str, ...]]
    TEMPERATURES: ClassVar[tuple[float, ...]]

    def score(self, ballot: Ballot) -> float:
        """The candidate's own score, regardless of other candidates."""

    def weights(self, ballots: Sequence[Ballot], scores: Sequence[float]) -> list[float]:
        """The vote of each candidate, 0 or more."""

    def more(self, ballots: Sequence[Ballot], scores: Sequence[float]) -> NeedMore | None:
        """What to draw next; None if the election ends with these candidates. Called after each candidate, and without
        any at the beginning. Raises BadInput if the last candidate cannot be compared with those before it."""


@runtime_checkable
class Checked(Method, Protocol):
    """A method whose result a referee may check once."""

    def reweighed(self, elected: Elected, ballots: Sequence[Ballot], sufficiency: float) -> list[float]:
        """The vote of each candidate, given the referee's verdict on the winner's evidence, in [0, 1]."""


class Election:
    """The election for one question, by a method. `decision`: the latest one."""

    def __init__(self, method: Method):
        self.method = method
        self._ballots: list[Ballot] = []
        self._scores: list[float] = []
        self.decision: Decision = method.more((), ()) or NeedMore()

    def add(self, candidate: Candidate) -> Decision:
        """Count a candidate and return the decision; after a stop, the candidate is ignored.

        Raises BadInput for a candidate without an input that the method needs, or that cannot be compared.
        """
        if isinstance(self.decision, Elected):
            return self.decision
        require_inputs([candidate], self.method.INPUTS, self.method.NAME)
        self._ballots.append(read_ballot(candidate))
        self._scores.append(self.method.score(self._ballots[-1]))
        self.decision = self.method.more(self._ballots, self._scores) or self._elected()
        return self.decision

    def end(self) -> Elected:
        """The result without further candidates."""
        if isinstance(self.decision, NeedMore):
            self.decision = self._elected()
        return self.decision

    def check(self, sufficiency: float | None) -> Elected:
        """The result after the one referee check: a verdict in [0, 1] on the evidence of the winning candidate, None if
        there is none. It may elect another answer, which is not checked again.

        Raises ValueError for a method that has no such check.
        """
        elected = self.end()
        if not isinstance(self.method, Checked):
            raise ValueError(f"{self.method.NAME} has no referee check")
        if sufficiency is not None and elected.winner is not None:
            weights = self.method.reweighed(elected, self._ballots, sufficiency)
            self.decision = elected = outcome(self._ballots, self._scores, weights)
        return elected

    def _elected(self) -> Elected:
        return outcome(self._ballots, self._scores, self.method.weights(self._ballots, self._scores))


def elect(candidates: Iterable[Candidate], method: Method, referee: RefereeCheck | None = None) -> Elected:
    """The result for candidates in the order of their arrival; those after a stop are not taken from the iterable.

    referee: asked once, about the winner, if the method has a referee check. Raises as `Election`.
    """
    election = Election(method)
    taken: list[Candidate] = []
    for candidate in candidates:
        taken.append(candidate)
        if isinstance(election.add(candidate), Elected):
            break
    elected = election.end()
    if referee is None or elected.winner is None:
        return elected
    return election.check(referee(taken[elected.winner]))
