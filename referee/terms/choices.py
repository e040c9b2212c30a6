"""Reading of multiple-choice references: which option is meant, by its letter, its text or both.

Answers are judged by Open-o3-Video's strict rule, references are read wherever their meaning is plain: data sets write
`B`, `(B)`, `b`, `B. a cup` or `a cup`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

# An option, or a reference, as letter and text: `B. a cup`, `B: a cup`, `(B) a cup`, `B) a cup`.
WITH_TEXT = re.compile(r"\s*[(\[]?([A-Za-z])[)\].:、．：]\s*(\S.*)", re.DOTALL)


def letter(answer: str) -> str:
    """`answer` without the marks around a letter: X of `X`, `X.`, `(X)` and `[X]`; any other text as it is."""
    answer = answer.strip()
    if len(answer) > 2 and answer[0] + answer[-1] in ("()", "[]"):
        return answer[1:-1]
    return answer[:-1] if len(answer) > 1 and answer[-1] == "." else answer


def right_choices(reference: str, options: Sequence[str]) -> set[str]:
    """What `letter` gives for each right answer: the letter of the option that `reference` means, and the reference as
    it is written. Empty if it is blank, or names none of the `options`, if there are any."""
    written = letter(reference)
    if not written:
        return set()
    if not options:
        return {written, _stated(reference) or written}
    chosen = _chosen(reference, _by_letter(options))
    return {written, chosen} if chosen else set()


def _stated(reference: str) -> str | None:
    """The capital letter that a reference states, alone or before a text; None if it is something else."""
    alone, with_text = letter(reference), WITH_TEXT.fullmatch(reference)
    stated = alone if len(alone) == 1 else with_text[1] if with_text else ""
    return stated.upper() if stated.isascii() and stated.isalpha() else None


def _by_letter(options: Sequence[str]) -> dict[str, str]:
    """letter -> text of each option; options that are not lettered in order get the letters of their places."""
    letters = [chr(ord("A") + place) for place in range(len(options))]
    matches = [WITH_TEXT.fullmatch(option) for option in options]
    if [match[1].upper() for match in matches if match] == letters:
        return {match[1]: match[2] for match in matches if match}
    return dict(zip(letters, options))


def _chosen(reference: str, by_letter: Mapping[str, str]) -> str | None:
    """The letter of the option that the reference means; None if it means none, or contradicts itself."""
    same_text = [key for key, text in by_letter.items() if _plain(text) == _plain(reference)]
    if len(same_text) == 1:
        return same_text[0]
    stated, with_text = _stated(reference), WITH_TEXT.fullmatch(reference)
    chosen = next((key for key in by_letter if key.upper() == stated), None)
    if chosen is not None and with_text and _plain(with_text[2]) != _plain(by_letter[chosen]):
        return None
    return chosen


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".").rstrip()
