"""RLER's rewards other than accuracy (arXiv 2604.04379, formulas as reported; domain.md section 3).

A completion thinks, cites shown frames by their index from 0, and answers:

    <think>…</think><keyframes>[3, 5]</keyframes><answer>…</answer>
"""

from __future__ import annotations

import math
import re

from evidence.answers import CitedFrames, cited_frames
from evidence.errors import BadInput
from referee.terms.view import GroupView, needs
from referee.terms.words import words

SECTION = re.compile(r"</?(?:think|keyframes|answer)>")
IN_ORDER = ["<think>", "</think>", "<keyframes>", "</keyframes>", "<answer>", "</answer>"]
TAG = re.compile(r"<[^<>]*>")


def rler_format(view: GroupView) -> list[float]:
    """1 for exactly one thought, one non-empty list of cited frames and one answer, in this order; else 0. Our reading:
    a list with invalid citations is still a list."""
    return [float(_in_form(text)) for text in view.texts]


@needs("frames")
def frame_sensitive(view: GroupView) -> list[float]:
    """clip((|K| - E) / (1 + |K|), 0, 1): K are the shown frames that are cited, E is the number of invalid citations.
    0 for a completion that cites nothing. The recipe's gate restricts it to right and well-formed completions. Raises
    BadInput if a frame is cited and the shown frames are unknown."""

    def cited(shown: int) -> list[CitedFrames]:
        return [cited_frames(text, shown) or CitedFrames((), 0) for text in view.texts]

    if not any(invalid for _, invalid in cited(0)):
        return [0.0] * len(view.texts)
    return [max(0.0, (len(valid) - invalid) / (1 + len(valid))) for valid, invalid in cited(len(view.frame_times))]


def think_transparency(view: GroupView, *, low: int = 0, high: int = 320) -> list[float]:
    """sin^2(pi L), where L in [0, 1] is the position of the thought's length in words between `low` and `high`: the
    maximum is halfway.

    Our reading: words and not tokens, since a completion's token count includes its answer, and depends on the model;
    tags are not words. The bounds are ours: they put the maximum at 160 words. Raises BadInput unless 0 <= low < high.
    """
    if not 0 <= low < high:
        raise BadInput(f"think_transparency: low = {low}, high = {high}: must satisfy 0 <= low < high")
    shares = [(len(_words(c.think)) - low) / (high - low) for c in view.completions]
    return [math.sin(math.pi * min(max(share, 0.0), 1.0)) ** 2 for share in shares]


def anti_repetition(view: GroupView, *, n: int = 3) -> list[float]:
    """-rho, in [-1, 0], where rho is the share of the thought's runs of `n` words that repeat an earlier run, ignoring
    case. A thought of fewer words repeats nothing. Raises BadInput if `n` is below 1."""
    if n < 1:
        raise BadInput(f"anti_repetition: n = {n}: must be 1 or more")
    return [-_repeated(_words(completion.think), n) for completion in view.completions]


def _in_form(text: str) -> bool:
    if [tag[0] for tag in SECTION.finditer(text)] != IN_ORDER:
        return False
    cited = cited_frames(text, 0)
    return cited is not None and cited.invalid > 0


def _words(think: str | None) -> list[str]:
    return words(TAG.sub(" ", think or "").casefold())


def _repeated(words: list[str], n: int) -> float:
    runs = list(zip(*(words[start:] for start in range(n))))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
