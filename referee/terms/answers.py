"""Correctness of answers: the rules, and the choice of a rule for each sample.

Each rule is a function of the answer (the text between its tags) and the reference, with values in [0, 1]. A completion
without an answer gets 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from evidence.answers import boxes, intervals
from evidence.geometry import convert, iou, tiou
from evidence.grammar import parse
from evidence.numbers import Interval, quantity
from evidence.spaces import in_pixels
from evidence.types import Box, BoxSpace, Sample
from referee.terms.choices import letter, right_choices
from referee.terms.rouge import rouge
from referee.terms.view import GroupView, needs
from referee.terms.words import plain, words

Rule = Callable[..., float]  # (answer, reference); rules for choices also take `options`

OPTION = "Correct Option:"
# Casefolded task, as the dataset readers write it -> rule (docs/data.md). For other tasks a sample with options is a
# multiple choice, and any other sample is free-form.
BY_TASK = {
    "visual qa": "box",
    "temporal qa": "interval",
    "temporal qa (mcq)": "stated choice",
    "general video qa mcq": "choice",
    "multiple choice": "choice",  # this and the following: Video-R1 and EasyVideoR1
    "numerical": "numeric",
    "regression": "regression",
    "ocr": "ocr",
    "boolean": "exact",
    "temporal grounding": "interval",
    "spatial-temporal grounding": "interval",
}
# Tolerated relative errors of mean_relative_accuracy.
MRA_ERRORS = tuple((10 - i) / 20 for i in range(10))


def exact(answer: str, reference: str) -> float:
    """1 if the texts are equal except for case, runs of whitespace and a final full stop; else 0."""
    return float(plain(answer) == plain(reference))


def choice(answer: str, reference: str, options: Sequence[str] = ()) -> float:
    """Open-o3-Video's rule: 1 for the option's letter as X, `X.`, `(X)` or `[X]`, and nothing else. The reference may
    also be written with the option's text, or as the text alone; the same text is then a right answer, too. A reference
    that names no option gives 0."""
    return float(letter(answer) in right_choices(reference, options))


def stated_choice(answer: str, reference: str, options: Sequence[str] = ()) -> float:
    """For a temporal multiple choice: `choice` of the letter after "Correct Option:" and the reference's first line."""
    _, stated, chosen = answer.partition(OPTION)
    return choice(chosen, reference.partition("\n")[0], options) if stated else 0.0


def numeric(answer: str, reference: str) -> float:
    """Video-R1's rule: 1 if the numbers are equal after rounding to two decimals; commas are thousands separators.
    Unlike in Video-R1, 5 and 5.0 are the same number, fractions are numbers, and a reference may have a unit, which the
    answer may repeat or leave out (evidence.numbers.quantity)."""
    numbers = _numbers(answer, reference)
    return float(numbers is not None and round(numbers[0], 2) == round(numbers[1], 2))


def mean_relative_accuracy(answer: str, reference: str) -> float:
    """The share of the thresholds .5, .55, … .95 for which the relative error is at most one minus the threshold.

    VSI-Bench's measure, with which Video-R1 evaluates regressions; see `closeness`.
    """
    error = _relative_error(answer, reference)
    return sum(error <= tolerance + 1e-9 for tolerance in MRA_ERRORS) / len(MRA_ERRORS)


def closeness(answer: str, reference: str) -> float:
    """One minus the relative error, at least 0: the reward in Video-R1's released code."""
    return max(0.0, 1 - _relative_error(answer, reference))


def ocr(answer: str, reference: str) -> float:
    """One minus the word error rate, at least 0 (jiwer); in scripts without spaces the character error rate."""
    from jiwer import wer

    reference, answer = " ".join(words(reference)), " ".join(words(answer))
    if not reference:
        return float(not answer)
    return max(0.0, 1 - float(wer(reference, answer)))


def interval(answer: str, span: Interval) -> float:
    """Temporal IoU, with the hull as denominator, of the answer's first interval and `span`; 0 for a reversed one."""
    answered = intervals(answer)
    return tiou(answered[0], span) if answered else 0.0


def accuracy(
    view: GroupView,
    *,
    free_form: Literal["rouge", "exact"] = "rouge",
    regression: Literal["mra", "closeness"] = "mra",
) -> list[float]:
    """Correctness of each answer by the rule of the sample's task (BY_TASK, docs/reward.md)."""
    rule = rule_of(view.sample)
    if rule == "box":
        return answered_box(view)
    if rule == "interval":
        span = true_span(view.sample)
        return [interval(completion.answer or "", span) if span else 0.0 for completion in view.completions]
    if rule == "free-form":
        rule = free_form
    elif rule == "regression":
        rule = regression
    return _each(view, RULES[rule])


def rule_of(sample: Sample) -> str:
    """The sample's rule: "box", "interval", "free-form", or a key of RULES."""
    return BY_TASK.get(sample.task.casefold(), "choice" if sample.options else "free-form")


def reference_of(sample: Sample) -> str:
    """The sample's answer or, if it is prose around answer tags, the text between them; empty if it has none."""
    answer = sample.answer or ""
    tagged = parse(answer).answer if "<answer>" in answer else None
    return answer if tagged is None else tagged.strip()


def true_span(sample: Sample) -> Interval | None:
    """The sample's first span or, without spans, the first interval in the last line of its answer."""
    spans = sample.spans or intervals(reference_of(sample).rpartition("\n")[2])
    return spans[0] if spans else None


def true_box(view: GroupView) -> Box | None:
    """The first box in the answer of a visual QA, converted from pixels of the original to those of the resized frame.
    Raises BadInput if the frame size is unknown."""
    frames, size = view.known_frames, view.sample.image_size
    original = BoxSpace(*size) if size and min(size) > 0 else frames.original_space
    return next((convert(box, original, frames.resized_space) for box in boxes(reference_of(view.sample))), None)


@needs("frames")
def answered_box(view: GroupView) -> list[float]:
    """IoU of the first box in each answer with the reference's. Raises BadInput if an answer has a box and the frame
    size is unknown."""
    answered = [next(iter(boxes(completion.answer or "")), None) for completion in view.completions]
    if not any(answered):
        return [0.0] * len(answered)
    frames, truth = view.known_frames, true_box(view)
    if truth is None:
        return [0.0] * len(answered)
    return [0.0 if box is None else iou(in_pixels(box, frames, view.box_space), truth) for box in answered]


# The rules that compare two texts.
RULES: dict[str, Rule] = {
    "exact": exact,
    "choice": choice,
    "stated choice": stated_choice,
    "numeric": numeric,
    "mra": mean_relative_accuracy,
    "closeness": closeness,
    "ocr": ocr,
    "rouge": rouge,
}


def term_of(rule: Rule) -> Callable[[GroupView], list[float]]:
    """The rule as a term for any task."""

    def term(view: GroupView) -> list[float]:
        return _each(view, rule)

    term.__name__, term.__doc__ = rule.__name__, rule.__doc__
    return term


def _each(view: GroupView, rule: Rule) -> list[float]:
    reference = reference_of(view.sample)
    if not reference or reference.isspace():  # two empty texts are no agreement
        return [0.0] * len(view.completions)
    if rule in (choice, stated_choice):
        rule = partial(rule, options=view.sample.options)
    answers: Sequence[str | None] = [completion.answer for completion in view.completions]
    return [0.0 if answer is None else rule(answer, reference) for answer in answers]


def _numbers(answer: str, reference: str) -> tuple[float, float] | None:
    """Both numbers; None if either text is anything else, or the answer has a unit that the reference has not."""
    a, b = quantity(answer), quantity(reference)
    return (a.value, b.value) if a and b and a.unit in ("", b.unit) else None


def _relative_error(answer: str, reference: str) -> float:
    """|answer - reference| / |reference|; infinite if either is not a number, or the reference alone is 0."""
    numbers = _numbers(answer, reference)
    if numbers is None:
        return math.inf
    a, b = numbers
    if b == 0:
        return 0.0 if a == 0 else math.inf
    return abs(a - b) / abs(b)
