"""Conversion of boxes from the coordinates that a policy writes; each model family has its own (`template.box_space`).

Guarantee: every completion enters the pipeline through `read`, so that all later stages see claims' boxes in pixels
of the resized frame. Nothing is rounded or clipped, and boxes written in those pixels stay exactly as written.
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
    """`parse(text)` with the claims' boxes converted from `space` (a key of SPACES) to pixels of the resized frame.

    Boxes in the answer stay text: convert them with `in_pixels` where they are read.
    """
    completion = parse(text)
    claims = (replace(c, box=c.box and in_pixels(c.box, info, space)) for c in completion.claims)
    return replace(completion, claims=tuple(claims))


def in_pixels(box: Box, info: FrameInfo, space: str) -> Box:
    """A box converted from `space` (a key of SPACES) to pixels of the resized frame."""
    return convert(box, SPACES[space](info), info.resized_space)
