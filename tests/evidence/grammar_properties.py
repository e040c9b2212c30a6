"""What holds of the parse of any text: shared by the property tests and the fuzz target."""

from __future__ import annotations

import math

from evidence.grammar import DEGENERATE, parse


def check(text: str) -> None:
    """Raises AssertionError unless `text`, as it stands and as a thought, is read as evidence.grammar promises."""
    for wrapped in (text, f"<think>{text}</think><answer>a</answer>"):
        said = parse(wrapped)
        assert parse(wrapped) == said
        assert said.claims == () or said.think is not None
        assert not said.well_formed or (said.think is not None and said.answer is not None)
        begins = 0
        for claim in said.claims:
            start, end = claim.span
            assert begins <= start < end <= len(wrapped)
            assert wrapped.startswith(("<obj>", "<box>"), start)
            begins = start
            numbers = [*(claim.box or ()), *(n for n in (claim.time, claim.until) if n is not None)]
            assert all(math.isfinite(number) and abs(number) < 1e10 for number in numbers)
            assert claim.reason != ""
            if claim.reason in (None, DEGENERATE):
                assert claim.phrase
                assert claim.phrase in wrapped[:end]  # named in its span, or before it where it has several times
                assert claim.box is not None
                assert claim.time is not None
                assert claim.until is None or claim.time <= claim.until
