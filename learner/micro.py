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
