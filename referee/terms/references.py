"""References that no answer can satisfy: each is scored against itself, by the function that pays the reward."""

from __future__ import annotations

import re

from evidence.grammar import Completion
from evidence.types import FrameInfo, Sample
from referee.terms.answers import OPTION, accuracy, reference_of, rule_of, true_span
from referee.terms.view import GroupView
from referee.terms.words import letter_words

REASONS = {
    "choice": "names none of its options",
    "stated choice": "names none of its options",
    "numeric": "is not a plain number",
    "regression": "is not a plain number",
    "interval": "holds no interval in order",
    "box": "holds no box with area",
}
ANY_SIZE = (1000, 1000)  # of an image whose size is not given: its box is compared with itself


ASCII_WORD = re.compile(r"[A-Za-z0-9]+")
HAVE_SPAN = ("interval", "stated choice")  # rules of tasks whose answer holds an interval
# Built-in terms that compare a completion with the reference answer.
READ_REFERENCE = frozenset(
    {
        *("accuracy", "choice", "exact", "numeric", "ocr", "regression", "closeness", "rouge", "box_iou", "text_judge"),
        *("ans_acc", "ans_tiou", "ans_viou", "thk_temporal_segment", "thk_spatial"),
        *("temporal_iou", "temporal_iou_boundary", "temporal_iou_multi"),
    }
)


def unscorable(sample: Sample) -> str | None:
    """Why no answer to the sample can be right; None if its own reference is. The reference of a temporal task, a
    multiple choice included, needs an interval in order."""
    own = _own_answer(sample)
    if rule_of(sample) == "free-form":  # earns something exactly if it has a word; ROUGE would take quadratic time
        earns = bool(letter_words(reference_of(sample), ASCII_WORD.findall))
    else:
        earns = own is not None and accuracy(_view(sample, own))[0] > 0
    span = true_span(sample) if rule_of(sample) in HAVE_SPAN else (0.0, 1.0)
    ordered = span is not None and span[0] < span[1]
    if earns and ordered:
        return None
    reference = reference_of(sample)
    if not reference.strip() and rule_of(sample) != "interval":
        return "has no answer"
    if earns:
        return f"the answer {reference!r:.60} {REASONS['interval']}"
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
