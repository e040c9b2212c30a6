"""What one forward of a rank is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from learner.packing import Batch


@dataclass(frozen=True)
class MicroBatch:
    """One forward: rows, the images of each row in order (object refs or arrays, uint8 [n, H, W, 3]), and the loss's
    token values, float32 [N] each."""

    batch: Batch
    images: tuple[Any, ...]
    weights: np.ndarray
    advantages: np.ndarray
    behaviour: np.ndarray


def sequence_of(batch: Batch) -> np.ndarray:
    """int64 [N]: which of the batch's sequences (0..K-1) each scored token is of."""
    rows = batch.predict_from // batch.token_ids.shape[1]
    branch = batch.branch.reshape(-1)[batch.predict_from]
    # A sequence's first token may be predicted by the prefix (branch 0), those after it by tokens of its own branch.
    begins = (branch == 0) | (np.diff(branch, prepend=-1) != 0) & (np.roll(branch, 1) != 0)
    begins |= np.diff(rows, prepend=-1) != 0
    return np.cumsum(begins) - 1
