"""Group-relative advantages."""

from __future__ import annotations

import numpy as np


def group_advantages(rewards: np.ndarray, divide_by_std: bool) -> np.ndarray:
    """float32 [G] from rewards [G]: r - mean (Dr.GRPO, arXiv 2503.20783), or that over std + 1e-4, sample std
    (Open-o3-Video, arXiv 2510.20579).

    Smooth verdicts never are quite equal, so dividing makes full-size advantages of noise wherever a whole group is
    right, or wrong, alike.
    """
    centred = rewards - rewards.mean()
    return (centred / (rewards.std(ddof=1) + 1e-4) if divide_by_std else centred).astype(np.float32)
