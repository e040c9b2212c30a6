"""Division of text into words by its script.

Words are separated by whitespace, except in scripts that are written without spaces between words (UNSPACED), where
each character counts as one, with the marks and the closing punctuation that follow it. That is the usual fallback of
ROUGE for these languages; a word segmentation would need a dictionary for each. Texts in ASCII are divided exactly as
by `str.split`, and by rouge_score's own tokenizer for ROUGE. In all functions a letter with an accent is the same
whether Unicode writes it as one character or as two (NFC).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import regex

UNSPACED = "".join(
    rf"\p{{Script={name}}}"
    for name in ("Han", "Hiragana", "Katakana", "Bopomofo", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan")
)
WORD = regex.compile(rf"[{UNSPACED}]\p{{M}}*[\p{{Po}}\p{{Pe}}\p{{Pf}}]*|[^{UNSPACED}\s]+")
NO_LETTERS = regex.compile(r"[^\p{L}\p{M}\p{N}]+")


def words(text: str) -> list[str]:
    """The words of `text` as written, punctuation attached."""
    return text.split() if text.isascii() else WORD.findall(unicodedata.normalize("NFC", text))


def plain(text: str) -> str:
    """`text` without what never distinguishes two answers: case, runs of whitespace and a final full stop."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split()).removesuffix(".").rstrip()


def letter_words(text: str, ascii_words: Callable[[str], list[str]]) -> list[str]:
    """The words of `text` without punctuation, case and compatibility forms (NFKC) unified. Everything in ASCII is
    divided by `ascii_words`."""
    if text.isascii():
        return ascii_words(text)
    plain = NO_LETTERS.sub(" ", unicodedata.normalize("NFKC", text).casefold())
    return [part for word in words(plain) for part in (ascii_words(word) if word.isascii() else [word])]
