"""mRoPE positions by vLLM's rule (Qwen2-VL, arXiv 2409.12191, section 2.1): one function for engine and learner.

vLLM places the text after a video one past the largest position on any axis, time included. transformers 5.19's
`get_rope_index` leaves time out there, so that a video of several seconds reaches beyond the start of the text that
follows it: positions must not be taken from it for native videos (images have no time, so both rules agree there).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def mrope_positions(visual: np.ndarray, spans: Iterable[tuple[int, int, int]], time_step: float = 1.0) -> np.ndarray:
    """int32 [3, P] positions along (time, height, width).

    visual: bool [P], the tokens of images and videos. spans: the tokens along (t, h, w) of each, in order.
    time_step: positions from one step of a span's t to the next; fractions are cut off, as in vLLM.

    Text advances all three axes together.
    """
    positions = np.zeros((3, len(visual)), np.int32)
    rest = iter(spans)
    at, start = 0, 0
    while at < len(visual):
        if not visual[at]:
            positions[:, at] = start
            at, start = at + 1, start + 1
            continue
        span = np.indices(next(rest)).reshape(3, -1)
        span[0] = (span[0] * time_step).astype(np.int64)
        end = at + span.shape[1]
        positions[:, at:end] = start + span
        at, start = end, start + int(span.max()) + 1
    return positions
