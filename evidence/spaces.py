"""Boxes as a policy writes them: each family counts in its own space, which a config names (`template.box_space`).

Guarantee: `read` is how a completion comes into the house, so that behind it every claim's box is in pixels of the
resized frame, whoever looks at it. Nothing is rounded or cut, and pixels of the resized frame stay what was written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from evidence.geometry import convert
from evidence.grammar import Completion, parse
from evidence.types import NORMALISED, THOUSAND, Box, BoxSpace, FrameInfo

SPACES: dict[str, Callable[[FrameInfo], BoxSpace]] = {
    "resized": lambda info: info.resized_space,  # Qwen2.5-VL
    "original": lambda info: info.original_space,
    "thousand": lambda info: THOUSAND,  # Qwen3-VL
    "normalised": lambda info: NORMALISED,
}


def read(text: str, info: FrameInfo, space: str) -> Completion:
    """`parse(text)` with the claims' boxes, written in `space` (a key of SPACES), in pixels of the resized frame.

    Boxes in the answer stay text: whoever reads them converts them with `in_pixels`.
    """
    completion = parse(text)
    claims = (replace(c, box=c.box and in_pixels(c.box, info, space)) for c in completion.claims)
    return replace(completion, claims=tuple(claims))


def in_pixels(box: Box, info: FrameInfo, space: str) -> Box:
    """A box written in `space` (a key of SPACES), in pixels of the resized frame."""
    return convert(box, SPACES[space](info), info.resized_space)
