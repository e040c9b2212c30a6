"""Videos made by the tests themselves, whose frames say which they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest

BITS, BAR = 6, 16


def write_numbered(
    path: Path,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    pts: Sequence[int] | None = None,
    **mux: str,
) -> Path:
    """Frame k shows k in black and white bars, one a bit, lowest first. `pts`: in 1/100 s; 40 frames, 4 apart, if not
    given. `mux`: options of the container."""
    pts = range(0, 160, 4) if pts is None else pts
    with av.open(str(path), "w", options=mux) as container:
        stream = container.add_stream(codec, rate=100)
        stream.width, stream.height, stream.pix_fmt = BITS * BAR, 64, "yuv420p"
        stream.options = options or {}
        for k, at in enumerate(pts):
            bars = np.array([255 * (k >> bit & 1) for bit in range(BITS)], np.uint8)
            image = np.broadcast_to(bars.repeat(BAR)[None, :, None], (64, BITS * BAR, 3))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts = at
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def numbers(frames: Sequence[np.ndarray]) -> list[int]:
    """Which frames these are, if they are upright."""
    return [sum(int(f[32, BAR * bit + BAR // 2].mean() > 128) << bit for bit in range(BITS)) for f in frames]


@pytest.fixture
def numbered() -> Callable[..., Path]:
    return write_numbered


@pytest.fixture
def read_numbers() -> Callable[[Sequence[np.ndarray]], list[int]]:
    return numbers
