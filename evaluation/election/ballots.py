"""A candidate as an election reads it: its answer, the frames that it cites, its thought and its confidence.

Guarantees: reading never raises, whatever the text, and takes time linear in its length. Answers are counted as the
same answer if they are equal but for what never distinguishes two answers.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from evaluation.election.candidates import Candidate
from evidence.answers import cited_frames, confidence
from evidence.grammar import Completion, parse
from evidence.numbers import quantity
from referee.terms.answers import OPTION
from referee.terms.choices import letter
from referee.terms.words import plain


@dataclass(frozen=True)
class Ballot:
    """A candidate and what is read from it.

    answer: the text between its answer tags without surrounding whitespace, None without an answer: it has no vote.
    key: equal for equal answers (`answer_key`), None without an answer.
    cited: the indices of shown frames that it cites; empty if the number of frames is unknown.
    confidence: recorded or, if it is not, the one written in the text; None without either.
    """

    candidate: Candidate
    completion: Completion
    answer: str | None
    key: Hashable | None
    cited: frozenset[int]
    confidence: float | None


def read_ballot(candidate: Candidate) -> Ballot:
    completion = parse(candidate.text)
    answer = (completion.answer or "").strip()
    key = answer_key(answer)
    citations = cited_frames(candidate.text, candidate.frames or 0)
    written = confidence(candidate.text)
    return Ballot(
        candidate=candidate,
        completion=completion,
        answer=None if key is None else answer,
        key=key,
        cited=frozenset(citations.valid if citations else ()),
        confidence=written if candidate.confidence is None else candidate.confidence,
    )


def answer_key(answer: str) -> Hashable | None:
    """What equal answers have in common; None for a blank answer.

    A letter is the same with the marks around it (`B`, `(B)`, `[B]`, `B.`), and after "Correct Option:", whatever
    precedes it. Numbers are equal by value and unit (`5`, `5.0`, `1,000`). Any other text is the same regardless of
    case, runs of whitespace and a final full stop.
    """
    _, stated, chosen = answer.partition(OPTION)
    text = letter(chosen if stated else answer)
    return quantity(text) or plain(text) or None
