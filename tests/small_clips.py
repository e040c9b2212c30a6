"""Shared by the tests of frames: a sampling contract, small clips, and stopping a decoder pool."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import ray

from evidence.sampling import SamplingContract, most_bytes
from rollout.frames.decoder_pool import DecoderPool

CONTRACT = SamplingContract(frames=4, max_pixels=3136, min_pixels=784, multiple=28)
BOUND = most_bytes(CONTRACT)
Run = Callable[..., Any]


def clip(path: Path, grey: int) -> str:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 4, (112, 56))
    for k in range(8):
        writer.write(np.full((56, 112, 3), grey + 4 * k, np.uint8))
    writer.release()
    return str(path)


def stop(pool: DecoderPool) -> None:
    while not pool._free.empty():
        if (decoder := pool._free.get_nowait()) is not None:
            ray.kill(decoder)
