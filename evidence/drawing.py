"""Boxes drawn on frames. For referees: the frame with one box, and the crop. For people: an enlarged frame with the
boxes of several claims. numpy in, numpy out.

Frames are uint8 [H, W, 3], boxes are in pixels of the frame; arguments are never modified.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from evidence.geometry import clip
from evidence.types import Box

MAGENTA = (255, 0, 255)  # rare in natural scenes and absent from the embedded world
OUTSIDE = 127  # grey, for the part of a crop beyond the frame
Colour = tuple[int, int, int]
LEAST_SIDE = 240  # pixels of the shorter side of a frame for people; smaller ones are enlarged
WHITE: Colour = (255, 255, 255)
# Of claims, in turn, for people: dark enough for white letters on them.
CLAIM_COLOURS: tuple[Colour, ...] = ((200, 0, 150), (0, 105, 190), (200, 85, 0), (0, 125, 85))


@dataclass(frozen=True)
class Marked:
    """A box to draw for people, in pixels of the frame: its colour, and a label for its corner, "" for none."""

    box: Box
    colour: Colour
    label: str = ""


def picture(frame: np.ndarray, marks: Iterable[Marked], scale: int = 1, thickness: int = 3) -> np.ndarray:
    """A copy of `frame`, each pixel enlarged to `scale` x `scale`, with the boxes drawn in their colours on white.

    thickness: of a box's outline, in pixels of the picture, with two thirds as much white inside.
    """
    drawn = np.kron(frame, np.ones((scale, scale, 1), np.uint8)) if scale > 1 else frame.copy()
    labels = []
    for mark in marks:
        x1, y1, x2, y2 = (scale * value for value in mark.box)
        drawn = draw_box(drawn, (x1, y1, x2, y2), WHITE, thickness * 5 // 3)
        drawn = draw_box(drawn, (x1, y1, x2, y2), mark.colour, thickness)
        if mark.label:
            labels.append((mark, x1, y1))
    image = Image.fromarray(drawn)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(max(12, 4 * thickness))
    for mark, x1, y1 in labels:  # above all boxes
        left, top, right, bottom = pen.textbbox((0, 0), mark.label, font)
        side = max(right, bottom) + 2 * thickness
        x = min(max(x1, 0.0), drawn.shape[1] - side)
        y = min(max(y1, 0.0), drawn.shape[0] - side)
        pen.rectangle((x, y, x + side, y + side), mark.colour)
        pen.text((x + (side - right - left) / 2, y + (side - bottom - top) / 2), mark.label, WHITE, font)
    return np.asarray(image)


def enlarged(frame: np.ndarray, marks: Iterable[Marked]) -> np.ndarray:
    """`picture` of a frame, enlarged by a whole number so that its shorter side has at least LEAST_SIDE pixels."""
    side = min(frame.shape[:2])
    scale = -(-LEAST_SIDE // side) if side < LEAST_SIDE else 1
    return picture(frame, marks, scale, thickness=3 if scale > 1 else max(2, round(side / 112)))


def draw_box(frame: np.ndarray, box: Box, colour: Colour = MAGENTA, thickness: int | None = None) -> np.ndarray:
    """A copy of `frame` with the outline of `box`, drawn inwards from its edges and clipped to the frame.

    `thickness` is in pixels; by default 1 for every 112 pixels of the shorter side, at least 1.
    """
    height, width = frame.shape[:2]
    thickness = thickness or max(1, round(min(height, width) / 112))
    drawn = frame.copy()
    x1, y1, x2, y2 = (round(v) for v in clip(box, (width, height)))
    drawn[y1 : min(y1 + thickness, y2), x1:x2] = colour
    drawn[max(y2 - thickness, y1) : y2, x1:x2] = colour
    drawn[y1:y2, x1 : min(x1 + thickness, x2)] = colour
    drawn[y1:y2, max(x2 - thickness, x1) : x2] = colour
    return drawn


def resized(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`frame` at `size` (width, height): uint8 [h, w, 3]."""
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))


def crop(frame: np.ndarray, box: Box, pad_share: float, size: tuple[int, int]) -> np.ndarray:
    """`box` with a margin of `pad_share` of its sides all round, resized to `size` (width, height): uint8 [h, w, 3].

    Beyond the frame's borders the margin is grey, so that the box lies at the same place in every crop and the crop
    alone shows how well it fits. Raises ValueError for a box without area in the frame.
    """
    height, width = frame.shape[:2]
    x1, y1, x2, y2 = clip(box, (width, height))
    if x2 <= x1 or y2 <= y1:
        raise ValueError(f"box {box} has no area in a frame of {width}x{height}")
    dx, dy = pad_share * (x2 - x1), pad_share * (y2 - y1)
    left, top = int(max(0.0, x1 - dx)), int(max(0.0, y1 - dy))
    right, bottom = int(np.ceil(min(width, x2 + dx))), int(np.ceil(min(height, y2 + dy)))
    # Only the cropped part is padded: a frame may be large and the box small.
    margin_x, margin_y = int(np.ceil(dx)) + 1, int(np.ceil(dy)) + 1
    margins = ((margin_y, margin_y), (margin_x, margin_x), (0, 0))
    part = np.pad(frame[top:bottom, left:right], margins, constant_values=OUTSIDE)
    to_part_x, to_part_y = margin_x - left, margin_y - top
    region = (x1 - dx + to_part_x, y1 - dy + to_part_y, x2 + dx + to_part_x, y2 + dy + to_part_y)
    return np.asarray(Image.fromarray(part).resize(size, Image.Resampling.BILINEAR, box=region))
