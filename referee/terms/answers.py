"""Whether an answer is right."""

from __future__ import annotations

from evidence.errors import BadInput
from referee.terms.view import GroupView


def exact(answer: str | None, truth: str) -> float:
    """1 for the same answer but for case, runs of whitespace and a final full stop, else 0."""
    return float(answer is not None and _normalised(answer) == _normalised(truth))


def accuracy(view: GroupView, *, free_form: str = "exact") -> list[float]:
    """Of each answer. `free_form`: how answers in the policy's own words are compared."""
    if free_form != "exact":
        raise BadInput(f"free_form = {free_form}: it has to be exact")
    return [exact(completion.answer, view.sample.answer) for completion in view.completions]


def _normalised(answer: str) -> str:
    return " ".join(answer.casefold().split()).removesuffix(".").rstrip()
