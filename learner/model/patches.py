"""Turns frames into the patches that a model's vision tower takes.

Guarantee: `Patcher.patches` equals the pixel values of the model's own image processor, up to rounding, for frames
resized by the sampling contract. The mean and std for normalisation are read from the processor's files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoImageProcessor

from evidence.errors import BadInput
from evidence.families import VisionSizes, read_family


@dataclass(frozen=True)
class Patcher:
    """sizes: of the model's vision tower. mean, std: of pixels of 0-1, by channel, from the model's processor."""

    sizes: VisionSizes
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of_model(cls, folder: str | Path) -> Patcher:
        """Read sizes, mean and std from a model's folder. Raises BadInput if they are not there."""
        family = read_family(folder)
        try:
            sizes = family.vision_sizes(AutoConfig.from_pretrained(folder))
            processor = AutoImageProcessor.from_pretrained(folder)
            return cls(sizes, tuple(processor.image_mean), tuple(processor.image_std))
        except Exception as error:  # transformers raises many kinds for damaged files
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise BadInput(f"{folder}: its image processor cannot be loaded ({reason}); copy the model again") from None

    @property
    def patch(self) -> int:
        """Pixels along a patch's side."""
        return self.sizes.patch

    @property
    def merge(self) -> int:
        """Patches along a token's side."""
        return self.sizes.merge

    def patches(self, images: Iterable[np.ndarray], frame_counts: Sequence[int] | np.ndarray) -> torch.Tensor:
        """float32 [patches, channels * step_frames * patch * patch], in the order of transformers' processors.

        images: uint8 [n, H, W, 3] each: n single images, or one native video. frame_counts: frames of each image and
        video, in order. Along the temporal patch axis, `step_frames` frames of a video form a step; the last step, and
        the only step of an image, is padded by repeating its last frame.
        """
        parts, at = [torch.empty(0, self.sizes.patch_values)], 0
        for array in images:
            clips = array.reshape(-1, frame_counts[at], *array.shape[1:])
            at += len(clips)
            parts.append(self._clips(clips))
        return torch.cat(parts)

    def _clips(self, clips: np.ndarray) -> torch.Tensor:
        """The patches of k videos of f frames of one size, uint8 [k, f, H, W, channels]."""
        patch, merge, step_frames = self.patch, self.merge, self.sizes.step_frames
        if missing := -clips.shape[1] % step_frames:
            clips = np.concatenate([clips, np.repeat(clips[:, -1:], missing, axis=1)], axis=1)
        k, f, height, width, channels = clips.shape
        t, h, w = f // step_frames, height // patch // merge, width // patch // merge
        mean, std = (torch.tensor(v, dtype=torch.float32) * 255 for v in (self.mean, self.std))
        # np.array copies: frames from the object store are read-only, which torch does not accept.
        pixels = (torch.from_numpy(np.array(clips)).float() - mean) / std
        blocks = pixels.reshape(k, t, step_frames, h, merge, patch, w, merge, patch, channels)
        ordered = blocks.permute(0, 1, 3, 6, 4, 7, 9, 2, 5, 8)
        return ordered.reshape(k * t * h * w * merge * merge, -1)
