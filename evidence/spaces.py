"""Conversion of what a policy writes to what the video has: boxes from the coordinates of its model family
(`template.box_space`), and times from the rounded ones that its prompt printed.

Guarantees: every completion enters the pipeline through `read`, so that all later stages see claims' boxes in pixels
of the resized frame, and a time that the prompt printed as the time of the frame it was printed for. Boxes are neither
rounded nor clipped, and boxes written in those pixels, and all other times, stay exactly as written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from evidence.geometry import convert
from evidence.grammar import Completion, parse
from evidence.types import NORMALISED, THOUSAND, Box, BoxSpace, Claim, FrameInfo

SPACES: dict[str, Callable[[FrameInfo], BoxSpace]] = {
    "resized": lambda info: info.resized_space,  # Qwen2.5-VL
    "original": lambda info: info.original_space,
    "thousand": lambda info: THOUSAND,  # Qwen3-VL
    "normalised": lambda info: NORMALISED,
}


# A time in seconds as the prompt printed it -> the time, in seconds, of the frame that it was printed for.
PrintedTimes = Mapping[float, float]
NONE_PRINTED: PrintedTimes = MappingProxyType({})


@dataclass(frozen=True)
class Written:
    """How a policy writes: the `space` of its boxes, and the times that its prompt `printed` for given frames."""

    space: str = "resized"
    printed: Callable[[FrameInfo], PrintedTimes] = lambda info: NONE_PRINTED


def read(text: str, info: FrameInfo, space: str, printed: PrintedTimes = NONE_PRINTED) -> Completion:
    """`parse(text)` with the claims' boxes converted from `space` (a key of SPACES) to pixels of the resized frame, and
    their times from `printed` ones to those of the frames.

    Without that, the last frame could often not be cited: at 60 fps it may begin at 9.967 s and be printed as 10.0,
    after the video's end at 9.983 s. Boxes and times in the answer stay text: boxes are converted by `in_pixels` where
    they are read.
    """
    completion = parse(text)
    claims = (_at_frames(replace(c, box=c.box and in_pixels(c.box, info, space)), printed) for c in completion.claims)
    return replace(completion, claims=tuple(claims))


def _at_frames(claim: Claim, printed: PrintedTimes) -> Claim:
    """The claim with the frames' times in place of the printed ones. An interval in order stays in order."""
    if claim.time is None:
        return claim
    time = printed.get(claim.time, claim.time)
    if claim.until is None:
        return replace(claim, time=time)
    until = printed.get(claim.until, claim.until)
    return replace(claim, time=time, until=max(time, until) if claim.until >= claim.time else until)


def in_pixels(box: Box, info: FrameInfo, space: str) -> Box:
    """A box converted from `space` (a key of SPACES) to pixels of the resized frame."""
    return convert(box, SPACES[space](info), info.resized_space)
