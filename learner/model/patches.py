"""Frames become the patches that a model's vision tower takes.

Guarantees: `Patcher.patches` are the pixel values of the model's own image processor, to rounding, if frames come
resized by the sampling contract; the processor's files say by which statistics pixels are normalised.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoImageProcessor


@dataclass(frozen=True)
class Patcher:
    """patch: pixels along a patch's side; merge: patches along a token's side; mean, std: of pixels of 0-1, by channel.

    Families differ in their statistics: Qwen2.5-VL has OpenAI CLIP's, Qwen3-VL .5 and .5.
    """

    patch: int
    merge: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of_model(cls, folder: str | Path) -> Patcher:
        processor = AutoImageProcessor.from_pretrained(folder)
        return cls(processor.patch_size, processor.merge_size, tuple(processor.image_mean), tuple(processor.image_std))

    def patches(self, images: Iterable[np.ndarray], frame_counts: Sequence[int]) -> torch.Tensor:
        """float32 [patches, 3 * 2 * patch * patch], in the order of Qwen2-VL.

        images: uint8 [n, H, W, 3] each: n single images, or one native video. frame_counts: frames of each image and
        video, in order. Two frames of a video share a step along the temporal patch axis, and the odd one at the end,
        like an image, stands there twice.
        """
        parts, at = [torch.empty(0, 3 * 2 * self.patch**2)], 0
        for array in images:
            clips = array.reshape(-1, frame_counts[at], *array.shape[1:])
            at += len(clips)
            parts.append(self._clips(clips))
        return torch.cat(parts)

    def _clips(self, clips: np.ndarray) -> torch.Tensor:
        """The same of k videos of f frames of one size, uint8 [k, f, H, W, 3]."""
        patch, merge = self.patch, self.merge
        if clips.shape[1] % 2:
            clips = np.concatenate([clips, clips[:, -1:]], axis=1)
        k, f, height, width, _ = clips.shape
        t, h, w = f // 2, height // patch // merge, width // patch // merge
        mean, std = (torch.tensor(v, dtype=torch.float32) * 255 for v in (self.mean, self.std))
        # np.array copies: frames from the object store are read-only, which torch does not accept.
        pixels = (torch.from_numpy(np.array(clips)).float() - mean) / std
        blocks = pixels.reshape(k, t, 2, h, merge, patch, w, merge, patch, 3)
        ordered = blocks.permute(0, 1, 3, 6, 4, 7, 9, 2, 5, 8)
        return ordered.reshape(k * t * h * w * merge * merge, -1)
