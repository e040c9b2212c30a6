"""Properties of the parse of any text, shared by the property tests and the fuzz target."""

from __future__ import annotations

import math

from evidence.grammar import DEGENERATE, parse


def check(text: str) -> None:
    """Raise AssertionError unless `text`, alone and inside a thought, is parsed as evidence.grammar promises."""
    for wrapped in (text, f"<think>{text}</think><answer>a</answer>"):
        completion = parse(wrapped)
        assert parse(wrapped) == completion
        assert completion.claims == () or completion.think is not None
        assert not completion.well_formed or (completion.think is not None and completion.answer is not None)
        previous_start = 0
        for claim in completion.claims:
            start, end = claim.span
            assert previous_start <= start < end <= len(wrapped)
            assert wrapped.startswith(("<obj>", "<box>"), start)
            previous_start = start
            numbers = [*(claim.box or ()), *(n for n in (claim.time, claim.until) if n is not None)]
            assert all(math.isfinite(number) and abs(number) < 1e10 for number in numbers)
            assert claim.reason != ""
            if claim.reason in (None, DEGENERATE):
                assert claim.phrase
                assert claim.phrase in wrapped[:end]  # in its span, or before it if the object has several times
                assert claim.box is not None
                assert claim.time is not None
                assert claim.until is None or claim.time <= claim.until
