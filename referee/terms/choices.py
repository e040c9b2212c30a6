"""Reading of multiple-choice references: which option is meant, by its label, its text or both.

Answers are judged by Open-o3-Video's strict rule, references are read wherever their meaning is plain: data sets write
`B`, `(B)`, `b`, `Option B`, `B. a cup`, `B - a cup` or `a cup`. Labels are letters or
numbers, as the options have them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from referee.terms.words import plain

# A label alone, and a label with a text: `B. a cup`, `B: a cup`, `(B) a cup`, `B - a cup`, `2. a cup`. Not labels are
# the letters of `A.M.`, and the numbers of `1.5 m`, `1:30` and `3 - 5`.
ALONE = re.compile(r"\s*(?:(?i:option)\s+)?[(\[]?([A-Za-z]|[0-9]{1,2})[)\]]?[.:]?\s*")
WITH_TEXT = re.compile(
    r"\s*(?:(?i:option)\s+)?[(\[]?"
    r"(?:([A-Za-z])(?:[)\]:、．：]|\.(?![A-Za-z]\.)|\s+[-–—]\s)|([0-9]{1,2})(?:[)\]、．]|[.:：]\s))\s*(\S.*)",
    re.DOTALL,
)
BETWEEN_LABELS = re.compile(r"[\s,;&]+")


def letter(answer: str) -> str:
    """`answer` without the marks around a letter: X of `X`, `X.`, `(X)` and `[X]`; any other text as it is."""
    answer = answer.strip()
    if len(answer) > 2 and answer[0] + answer[-1] in ("()", "[]"):
        return answer[1:-1]
    return answer[:-1] if len(answer) > 1 and answer[-1] == "." else answer


def right_choices(reference: str, options: Sequence[str]) -> set[str]:
    """What `letter` gives for each right answer: the label of the option that `reference` means, and the reference as
    it is written. Empty if it is blank, or names none of the `options`, if there are any.

    A label alone means the option that has it, even if it is also the text of another. Several labels (`AC`, `A, C`)
    are right as they are written and in no other way, which is the published rule.
    """
    written = letter(reference)
    if not written:
        return set()
    if not options:
        return {written, _stated(reference)[0] or written}
    by_label = _by_label(options)
    chosen = _chosen(reference, by_label)
    if chosen is not None:
        return {written, chosen}
    return {written} if _are_labels(written, by_label) else set()


def _stated(reference: str) -> tuple[str | None, str | None]:
    """The label that a reference states, a letter as capital, and the text after it; None for each that is absent."""
    if alone := ALONE.fullmatch(reference):
        return alone[1].upper(), None
    if with_text := WITH_TEXT.fullmatch(reference):
        return (with_text[1] or with_text[2]).upper(), with_text[3]
    return None, None


def _by_label(options: Sequence[str]) -> dict[str, str]:
    """label -> text of each option. If no option has a label, or two have the same (`J. Doe`, `J. Roe`), all get the
    letters of their places. An option without a label among others with one goes by its text."""
    matches = [WITH_TEXT.fullmatch(option) for option in options]
    labels = [(match[1] or match[2]).upper() for match in matches if match]
    if not labels or len(set(labels)) < len(labels):
        return {chr(ord("A") + place): option for place, option in enumerate(options)}
    return {m[1] or m[2] if m else letter(option): m[3] if m else option for m, option in zip(matches, options)}


def _chosen(reference: str, by_label: Mapping[str, str]) -> str | None:
    """The label of the option that the reference means; None if it means none, or contradicts itself."""
    label, text = _stated(reference)
    stated = next((key for key in by_label if key.upper() == label), None)
    if stated is not None and text is None:
        return stated
    same_text = [key for key, option in by_label.items() if plain(option) == plain(reference)]
    if len(same_text) == 1:
        return same_text[0]
    return stated if stated is not None and text is not None and plain(text) == plain(by_label[stated]) else None


def _are_labels(written: str, by_label: Mapping[str, str]) -> bool:
    """Whether a text consists of different labels, side by side or with commas between them."""
    parts = [part for part in BETWEEN_LABELS.split(written) if part not in ("and", "")]
    parts = list(written) if len(parts) == 1 else parts
    return len(set(parts)) == len(parts) and set(parts) <= set(by_label)
