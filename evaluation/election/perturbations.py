"""Views: the input as it is, and perturbed, on which the candidates of an election are drawn. Pure functions on uint8
frames [n, H, W, 3].

Guarantees: frames keep their size and their times, so that a claim is about the same moment in every view; a box that
was read in a view is converted to the whole frame (`View.in_whole`), and cited frames to places in the video
(`View.placed`, `View.places`); equal views of equal frames are equal; arguments are never modified.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

from evidence.config_checks import require
from evidence.geometry import convert
from evidence.types import NORMALISED, Box, BoxSpace, FrameInfo

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
CITED = re.compile(r"<keyframes>([^<]*)</keyframes>")


@dataclass(frozen=True)
class PerturbationConfig:
    """Which views there are besides the input as it is. RLER names crops and brightness but not their sizes, which are
    our choice. What can change the right answer is off by default.

    brightness: a lighter and a darker view, by this share of each value (.1); 0 for neither.
    crop: five crops, of the corners and the centre, each without this share of each side. 0, the default, for none: the
        object may be in the part that is left out, and "on the left" depends on the frame.
    shuffle: a view with the frames, and their printed times, in another order. Off: models may read the order.
    frames: a view with each of these numbers of frames, evenly spread. None by default: a moment may be missed. The
        contract gives the frames of the input as it is, which is the densest view.
    """

    brightness: float = 0.1
    crop: float = 0.0
    shuffle: bool = False
    frames: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        require(0 <= self.brightness < 1, "brightness", self.brightness, "0 or more, and below 1")
        require(0 <= self.crop < 1, "crop", self.crop, "0 or more, and below 1")
        require(all(count >= 1 for count in self.frames), "frames", self.frames, "numbers of frames, each 1 or more")


@dataclass(frozen=True)
class View:
    """region: the part of the frame that is shown, at full size. brightness: a factor of all values. shuffled: whether
    the frames are in another order. frames: the number of frames shown, evenly spread; None for all."""

    name: str = "as it is"
    region: Box = WHOLE
    brightness: float = 1.0
    shuffled: bool = False
    frames: int | None = None

    def places(self, total: int) -> tuple[int, ...]:
        """The place of each shown frame among the `total` frames of the input as it is."""
        count = total if self.frames is None else min(self.frames, total)
        places = np.linspace(0, total - 1, count).round().astype(int)
        if self.shuffled:
            places = np.random.default_rng(count).permutation(places)
        return tuple(places.tolist())

    def pixels(self, frames: np.ndarray) -> np.ndarray:
        """The frames that are shown, uint8 [n, H, W, 3], a new array."""
        shown = frames[list(self.places(len(frames)))]
        if self.region != WHOLE:
            size = (frames.shape[2], frames.shape[1])
            box = convert(self.region, NORMALISED, BoxSpace(*size))
            images = (Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR, box=box) for frame in shown)
            shown = np.stack([np.asarray(image) for image in images])
        if self.brightness != 1:
            shown = np.clip(np.rint(shown * np.float32(self.brightness)), 0, 255).astype(np.uint8)
        return shown

    def seen(self, info: FrameInfo) -> FrameInfo:
        """`info` with the times of the frames that are shown, in their order."""
        return replace(info, times=tuple(info.times[place] for place in self.places(len(info.times))))

    def in_whole(self, box: Box, size: tuple[int, int]) -> Box:
        """A box in pixels of the view, in pixels of the whole frame. size: (width, height), equal for both."""
        if self.region == WHOLE:
            return box
        left, top, right, bottom = self.region
        (width, height), wide, high = size, right - left, bottom - top
        x, y = left * width, top * height
        return x + box[0] * wide, y + box[1] * high, x + box[2] * wide, y + box[3] * high

    def placed(self, text: str, total: int) -> str:
        """`text` with cited frames numbered in the order of the video, in which elections compare them."""
        if not self.shuffled:
            return text
        places = self.places(total)
        rank = {str(shown): str(sorted(places).index(place)) for shown, place in enumerate(places)}

        def ranked(match: re.Match[str]) -> str:
            indices = (index.strip() for index in match[1].strip().removeprefix("[").removesuffix("]").split(","))
            return f"<keyframes>[{', '.join(rank.get(index, index) for index in indices)}]</keyframes>"

        return CITED.sub(ranked, text)


def views(config: PerturbationConfig) -> tuple[View, ...]:
    """The input as it is, then its perturbations."""
    return (View(), *_perturbed(config))


def _perturbed(config: PerturbationConfig) -> Iterator[View]:
    if config.brightness:
        yield View("lighter", brightness=1 + config.brightness)
        yield View("darker", brightness=1 - config.brightness)
    if config.crop:
        kept, left_out = 1 - config.crop, config.crop
        places = {
            "top left": (0.0, 0.0),
            "top right": (left_out, 0.0),
            "bottom left": (0.0, left_out),
            "bottom right": (left_out, left_out),
            "centre": (left_out / 2, left_out / 2),
        }
        for name, (x, y) in places.items():
            yield View(f"{name} crop", region=(x, y, min(1.0, x + kept), min(1.0, y + kept)))
    if config.shuffle:
        yield View("shuffled", shuffled=True)
    for count in config.frames:
        yield View(f"{count} frames", frames=count)
