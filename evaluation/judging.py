"""Judges of free answers: a judge replies to a question, its true answer and a candidate answer. Pure.

V-STaR's rule for a reply: the whole reply is an integer, and 2 or more is right. "3." is unparsable, "10" is right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from referee.terms.words import plain

EXACT = "exact"  # the name of the judge by equality
Judge = Callable[[str, str, str], str]  # (question, true answer, candidate answer) -> reply

# The rule is the benchmark's, the wording ours: 0 to 3 by meaning alone, and nothing but the number in the reply.
RATING_PROMPT = (
    "Compare a candidate answer to a question with the true answer. Rate from 0 to 3 how close the candidate comes to "
    "the true answer in meaning; grammar and wording do not matter.\n0: no similarity, the candidate is entirely wrong."
    "\n1: low similarity, the candidate is largely wrong.\n2: high similarity, the candidate is largely right.\n"
    "3: the same meaning, the candidate is entirely right.\n\nQuestion: {question}\nTrue answer: {truth}\n"
    "Candidate answer: {answer}\n\nReply with one integer, 0, 1, 2 or 3, and nothing else."
)
RIGHT = 2
FAILED = -1  # how the official script records a reply that is not an integer


def exact(question: str, truth: str, answer: str) -> str:
    """Replies "3" if the answers are equal except for case, runs of whitespace and a final full stop; else "0"."""
    return "3" if plain(truth) == plain(answer) else "0"


def rating_prompt(question: str, truth: str, answer: str) -> str:
    """What a language model is asked about an answer."""
    return RATING_PROMPT.format(question=question, truth=truth, answer=answer)


def by_replies(replies: Mapping[str, str] | None) -> Judge:
    """A judge that answers with these replies, by prompt, and fails for a prompt without one. None: `exact`."""
    if replies is None:
        return exact
    return lambda question, truth, answer: replies.get(rating_prompt(question, truth, answer), "")


def rating(reply: str) -> int | None:
    """The integer that a whole reply is; None for any other reply."""
    try:
        return int(reply)
    except ValueError:
        return None


def recorded_rating(value: Any) -> int | None:
    """The rating that a result file carries as `VQA_score`; None for a judge's failure, or anything but an integer."""
    if isinstance(value, str):
        return rating(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or value == FAILED:
        return None
    return int(value)
