"""Judges of free answers: a judge is any callable that replies to a question, its true answer and a candidate. Pure.

V-STaR's rule for a reply: the whole reply is an integer, and 2 or more is right. "3." is unparsable, "10" is right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from referee.terms.words import plain

Judge = Callable[[str, str, str], str]  # (question, true answer, candidate answer) -> reply

RIGHT = 2
FAILED = -1  # how the official script records a reply that is not an integer


def exact(question: str, truth: str, answer: str) -> str:
    """Replies "3" if the answers are equal except for case, runs of whitespace and a final full stop; else "0"."""
    return "3" if plain(truth) == plain(answer) else "0"


JUDGES: dict[str, Judge] = {"exact": exact}


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
