"""Text of unknown origin (models, users, file names) made safe to show to people, on a terminal or on a page.

Guarantees: no control character, no mark that changes the direction of text around it, no half of a character and no
private character is left: nothing can hide, move or colour what stands beside it, and the result can be encoded.
"""

from __future__ import annotations

import unicodedata

REPLACED = "\N{REPLACEMENT CHARACTER}"
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}  # control, format (with the marks of direction), surrogates, private
JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"  # letters of some scripts need them, and emoji


def visible(text: str, kept: str = "\n") -> str:
    """The text with `kept` characters and joiners as they are, and every other hidden one replaced."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        REPLACED if unicodedata.category(char) in HIDDEN and char not in kept and char not in JOINERS else char
        for char in text
    )


def one_line(text: str, most: int) -> str:
    """`visible` text on one line of at most `most` characters."""
    shown = " ".join(visible(text[: 4 * most], kept="\n\t\r").split())
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"
