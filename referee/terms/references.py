"""References that no answer can satisfy: each is scored against itself, by the function that pays the reward."""

from __future__ import annotations

from evidence.grammar import Completion
from evidence.types import FrameInfo, Sample
from referee.terms.answers import OPTION, accuracy, reference_of, rule_of, true_span
from referee.terms.view import GroupView

REASONS = {
    "choice": "names none of its options",
    "stated choice": "names none of its options",
    "numeric": "is not a plain number",
    "regression": "is not a plain number",
    "interval": "holds no interval in order",
    "box": "holds no box with area",
}
ANY_SIZE = (1000, 1000)  # of an image whose size is not given: its box is compared with itself


def unscorable(sample: Sample) -> str | None:
    """Why every answer to the sample has accuracy 0, its own reference included; None if that one earns something."""
    own = _own_answer(sample)
    if own is not None and accuracy(_view(sample, own))[0] > 0:
        return None
    reference = reference_of(sample)
    if not reference.strip() and rule_of(sample) != "interval":
        return "has no answer"
    return f"the answer {reference!r:.60} {REASONS.get(rule_of(sample), 'holds no word')}"


def _own_answer(sample: Sample) -> str | None:
    """The reference as a policy would write it between its answer's tags."""
    rule, reference = rule_of(sample), reference_of(sample)
    if rule == "interval":
        span = true_span(sample)
        return None if span is None else f"[{span[0]:f}, {span[1]:f}]"
    return f"{OPTION} {reference.partition(chr(10))[0]}" if rule == "stated choice" else reference


def _view(sample: Sample, answer: str) -> GroupView:
    size = sample.image_size or ANY_SIZE
    frames = FrameInfo("", (), size, size, 0.0)
    return GroupView(sample, (answer,), (Completion(None, answer, (), False),), frames)
