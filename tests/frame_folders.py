"""Folders of JPEG frames whose content is easy to tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (112, 84)


def write_frames(
    folder: Path, count: int, first: int = 1, name: str = "{:05d}.jpg", size: tuple[int, int] = SIZE
) -> Path:
    """Write `count` frames, named by their number from `first`; the k-th, from 0, is grey of level 10k."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        Image.fromarray(np.full((size[1], size[0], 3), 10 * k % 256, np.uint8)).save(folder / name.format(first + k))
    return folder
