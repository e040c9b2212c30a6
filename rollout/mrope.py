"""mRoPE positions by vLLM's rule (Qwen2-VL, arXiv 2409.12191, section 2.1), for engine and learner.

In vLLM, the text after a video starts one past the largest position on any axis, time included. `get_rope_index` of
transformers 5.19 ignores the time axis here, so the positions of a video of several seconds overlap those of the text
that follows it. It must not be used for native videos; for images, which have no time, both rules agree.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def mrope_positions(visual: np.ndarray, spans: Iterable[tuple[int, int, int]], time_step: float = 1.0) -> np.ndarray:
    """int32 [3, P] positions along (time, height, width).

    visual: bool [P], whether a token belongs to an image or a video. spans: tokens along (t, h, w) of each image and
    video, in order. time_step: positions between consecutive steps of t; fractions are truncated, as in vLLM.

    A text token advances all three axes by one.
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
