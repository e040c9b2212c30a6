"""Is the answer right? One rule for each way in which an answer can be right, and which rule a sample goes by.

Each rule is a function of the answer, as it stands between its tags, and the reference; a completion without an
answer gets 0. All are in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

from evidence.answers import Interval, boxes, intervals
from evidence.geometry import convert, iou, tiou
from evidence.spaces import in_pixels
from evidence.types import Box, BoxSpace, Sample
from referee.terms.rouge import rouge
from referee.terms.view import GroupView, needs

Rule = Callable[[str, str], float]

OPTION = "Correct Option:"
# By the task as our readers write it, without case (docs/data.md). A sample with options and none of these tasks is a
# multiple choice; any other goes by the free-form rule.
BY_TASK = {
    "visual qa": "box",
    "temporal qa": "interval",
    "temporal qa (mcq)": "stated choice",
    "general video qa mcq": "choice",
    "multiple choice": "choice",  # Video-R1 and EasyVideoR1, from here on
    "numerical": "numeric",
    "regression": "regression",
    "ocr": "ocr",
    "boolean": "exact",
    "temporal grounding": "interval",
    "spatial-temporal grounding": "interval",
}
# Shares of the reference by which a regression's answer may be off.
MRA_ERRORS = tuple((10 - i) / 20 for i in range(10))


def exact(said: str, truth: str) -> float:
    """The same but for case, runs of whitespace and a final full stop."""
    return float(_plain(said) == _plain(truth))


def choice(said: str, truth: str) -> float:
    """Open-o3-Video's rule: the option's letter as X, `X.`, `(X)` or `[X]`, and nothing else. No letter is none's."""
    letter = _letter(truth)
    return float(bool(letter) and _letter(said) == letter)


def stated_choice(said: str, truth: str) -> float:
    """Of a temporal multiple choice: the letter after "Correct Option:"; the reference's is its first line."""
    _, stated, letter = said.partition(OPTION)
    return choice(letter, truth.partition("\n")[0]) if stated else 0.0


def numeric(said: str, truth: str) -> float:
    """Video-R1's rule: equal after rounding to two decimals, with commas taken out as thousands' separators. Unlike
    there, 5 and 5.0 are the same number."""
    a, b = _number(said), _number(truth)
    return float(a is not None and b is not None and round(a, 2) == round(b, 2))


def mean_relative_accuracy(said: str, truth: str) -> float:
    """The share of the thresholds .5, .55, … .95 for which the error, as a share of the reference, is at most one minus
    the threshold. VSI-Bench's measure, by which Video-R1 evaluates regressions; see `closeness`."""
    error = _relative_error(said, truth)
    return sum(error <= most + 1e-9 for most in MRA_ERRORS) / len(MRA_ERRORS)


def closeness(said: str, truth: str) -> float:
    """One minus the error as a share of the reference, at least 0: what Video-R1's released code trains with."""
    return max(0.0, 1 - _relative_error(said, truth))


def ocr(said: str, truth: str) -> float:
    """One minus the word error rate, at least 0 (jiwer)."""
    from jiwer import wer

    reference, hypothesis = " ".join(truth.split()), " ".join(said.split())
    if not reference:
        return float(not hypothesis)
    return max(0.0, 1 - float(wer(reference, hypothesis)))


def interval(said: str, span: Interval) -> float:
    """Temporal IoU, hull as denominator, of the first interval said; 0 for a reversed one."""
    found = intervals(said)
    return tiou(found[0], span) if found else 0.0


def accuracy(
    view: GroupView,
    *,
    free_form: Literal["rouge", "exact"] = "rouge",
    regression: Literal["mra", "closeness"] = "mra",
) -> list[float]:
    """How right the answer is, by the rule of the sample's task (BY_TASK, docs/reward.md)."""
    rule = rule_of(view.sample)
    if rule == "box":
        return answered_box(view)
    if rule == "interval":
        span = true_span(view.sample)
        return _each(view, lambda said, _: interval(said, span) if span else 0.0)
    if rule == "free-form":
        rule = free_form
    elif rule == "regression":
        rule = regression
    return _each(view, RULES[rule])


def rule_of(sample: Sample) -> str:
    """ "box", "interval", "free-form", or a key of RULES."""
    return BY_TASK.get(sample.task.casefold(), "choice" if sample.options else "free-form")


def true_span(sample: Sample) -> Interval | None:
    """The sample's first span; without one, what the last line of its answer says."""
    found = sample.spans or intervals(sample.answer.rpartition("\n")[2])
    return found[0] if found else None


def true_box(view: GroupView) -> Box | None:
    """The box in the answer of a visual QA, there in pixels of the original, in those of the resized frame. Raises
    BadInput where the frame size is not known."""
    frames, size = view.known_frames, view.sample.image_size
    original = BoxSpace(*size) if size and min(size) > 0 else frames.original_space
    return next((convert(box, original, frames.resized_space) for box in boxes(view.sample.answer)), None)


@needs("frames")
def answered_box(view: GroupView) -> list[float]:
    """IoU of the first box in each answer with the one in the reference. Raises BadInput where there is a box, and the
    frame size is not known."""
    said = [next(iter(boxes(completion.answer or "")), None) for completion in view.completions]
    if not any(said):
        return [0.0] * len(said)
    frames, truth = view.known_frames, true_box(view)
    if truth is None:
        return [0.0] * len(said)
    return [0.0 if box is None else iou(in_pixels(box, frames, view.box_space), truth) for box in said]


# The rules that need nothing but two texts.
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
    """The rule as a term, for whatever task."""

    def term(view: GroupView) -> list[float]:
        return _each(view, rule)

    term.__name__, term.__doc__ = rule.__name__, rule.__doc__
    return term


def _each(view: GroupView, rule: Rule) -> list[float]:
    said: Sequence[str | None] = [completion.answer for completion in view.completions]
    return [0.0 if answer is None else rule(answer, view.sample.answer) for answer in said]


def _plain(answer: str) -> str:
    return " ".join(answer.casefold().split()).removesuffix(".").rstrip()


def _letter(option: str) -> str:
    option = option.strip()
    if len(option) > 2 and option[0] + option[-1] in ("()", "[]"):
        return option[1:-1]
    return option[:-1] if len(option) > 1 and option[-1] == "." else option


def _number(text: str) -> float | None:
    try:
        number = float(text.strip().replace(",", ""))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _relative_error(said: str, truth: str) -> float:
    a, b = _number(said), _number(truth)
    if a is None or b is None:
        return math.inf
    if b == 0:
        return 0.0 if a == 0 else math.inf
    return abs(a - b) / abs(b)
