"""A term for completions that follow the grammar of evidence."""

from __future__ import annotations

from evidence.grammar import Completion
from referee.terms.view import GroupView


def claim_format(view: GroupView) -> list[float]:
    """1 for a well-formed completion with a valid claim, .5 for a well-formed one without, else 0 (our reading of
    SER's format term)."""
    return [_form(completion) for completion in view.completions]


def _form(completion: Completion) -> float:
    if not completion.well_formed:
        return 0.0
    return 1.0 if any(claim.valid for claim in completion.claims) else 0.5
