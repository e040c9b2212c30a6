"""Boxes and times: areas, overlaps, nearest frames. Pure arithmetic on (x1, y1, x2, y2) and (start, end) tuples.

A box with a side that is not positive has area 0 and overlaps nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from evidence.types import Box, BoxSpace


def area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def intersection(a: Box, b: Box) -> float:
    """Area that both boxes cover."""
    return area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))


def iou(a: Box, b: Box) -> float:
    """Intersection over union, in [0, 1]."""
    common = intersection(a, b)
    return common / (area(a) + area(b) - common) if common > 0 else 0.0


def coverage(target: Box, box: Box) -> float:
    """Share of `target` that lies in `box`, in [0, 1]; 0 for a target without area."""
    whole = area(target)
    return intersection(target, box) / whole if whole > 0 else 0.0


def clip(box: Box, size: tuple[int, int]) -> Box:
    """The box clipped to a frame of `size` (width, height). Ordered boxes stay ordered."""
    w, h = size
    return (
        min(max(box[0], 0.0), w),
        min(max(box[1], 0.0), h),
        min(max(box[2], 0.0), w),
        min(max(box[3], 0.0), h),
    )


def convert(box: Box, source: BoxSpace, target: BoxSpace) -> Box:
    """The box converted from `source` to `target` coordinates, neither rounded nor clipped; unchanged if they agree."""
    if source == target:  # multiplying and dividing by the same number could change the last digit
        return box
    return (
        box[0] * target.width / source.width,
        box[1] * target.height / source.height,
        box[2] * target.width / source.width,
        box[3] * target.height / source.height,
    )


def tiou(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Temporal IoU with the hull as denominator (domain.md 2, reward 2); 0 for a reversed or empty interval, which
    overlaps nothing."""
    hull = max(a[1], b[1]) - min(a[0], b[0])
    return max(0.0, min(a[1], b[1]) - max(a[0], b[0])) / hull if hull > 0 else 0.0


def nearest_frame(times: Sequence[float], time: float) -> int:
    """Index of the frame nearest to `time` among ascending `times` (seconds, at least one); ties go to the earlier."""
    right = min(bisect_left(times, time), len(times) - 1)
    left = max(right - 1, 0)
    return left if time - times[left] <= times[right] - time else right
