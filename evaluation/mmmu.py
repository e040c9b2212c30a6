"""MMMU's reading of answers, which VideoMMMU's official script uses: letters and open answers. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

PUNCTUATION = ",.!?;:'"
LEAST_WORDS = 6  # of an answer in which an option's text is looked for
# Words before the part of a sentence that holds the answer; "=" counts in the last line only.
INDICATORS = (
    *("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ", "are ", "in total ", "total "),
    *("identify ", "recognize ", "calculated as ", "counted as ", "measured as ", "observed as ", "concluded as "),
    *("found to be ", "equals ", "determined to be ", "number of ", "value is ", "adds up to ", "have ", "has "),
)
NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)
Answer = str | float


def letter_of(response: str, labels: str, options: Sequence[str]) -> str | None:
    """The letter that MMMU reads in a response: before a full stop or a colon, else in brackets, else before a space,
    else by the option's text in a longer response; of several, the one that comes last."""
    for mark in PUNCTUATION:
        response = response.strip(mark)
    response = f" {response} "
    for forms in (("{}.", "{}:"), ("({})",), ("{} ",)):
        found = [label for label in labels if any(form.format(label) in response for form in forms)]
        if found:
            last = _last_form(response, labels)
            return max(found, key=lambda label: response.rfind(last.format(label)))
    if len(response.split()) < LEAST_WORDS:
        return None
    lower = response.lower()
    by_text = {label: lower.rfind(option.lower()) for label, option in zip(labels, options) if option.lower() in lower}
    return max(by_text, key=lambda label: by_text[label]) if by_text else None


def _last_form(response: str, labels: str) -> str:
    """The form by whose last place one of several letters is chosen."""
    for form in ("{}.", "{}:", "({})"):
        if any(form.format(label) in response for label in labels):
            return form
    return " {} "


def is_right(response: str, truth: str) -> bool:
    """Whether an open response holds the truth: as a substring of one of its parts, or as a number that is equal after
    rounding to two decimals."""
    right = _normalised(truth)
    for part in _parts(response):
        numbers = [number for pattern in NUMBERS for number in pattern.findall(part)]
        for answer in (answer for text in (part, *numbers) for answer in _normalised(text)):
            if isinstance(answer, float):
                if answer in right:
                    return True
            elif any(isinstance(text, str) and text in answer for text in right):
                return True
    return False


def _parts(response: str) -> list[str]:
    """Of each line the shortest text after an indicator; the whole response if no line has one."""
    response = response.strip().strip(".").lower()
    lines = response.split("\n")
    parts = []
    for number, line in enumerate(lines, 1):
        indicators = (*INDICATORS, "=") if number == len(lines) else INDICATORS
        tails = [line.split(word)[-1].strip() for word in indicators if word in line]
        shortest = ""
        for tail in tails:  # an empty one gives way to the next, whatever its length
            shortest = tail if not shortest or len(tail) < len(shortest) else shortest
        if shortest and shortest not in PUNCTUATION:
            parts.append(shortest)
    return parts or [response]


def _normalised(text: str) -> list[Answer]:
    """A number rounded to two decimals, or the text in lower case; a single character must stand beside a space."""
    text = text.strip()
    try:
        number = float(text.replace(",", ""))
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]
    return [round(number, 2)] if math.isfinite(number) else [text.lower()]
