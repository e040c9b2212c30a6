"""Units: sequences over the same images, with the longest prefix that they share.

For a group of G trajectories the prefix is the whole prompt; for supervised questions about one clip it is the video.
Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evidence.types import Prompt


@dataclass(frozen=True)
class ImageSet:
    """Images that are encoded together: an array of k images, or of one native video.

    key: equal keys mean equal pixels. pixels: uint8 [n, H, W, 3], or a ref to it.
    grids: int32 [k, 3], frame_counts: int32 [k], as in evidence.types.Prompt.
    """

    key: str
    pixels: Any
    grids: np.ndarray
    frame_counts: np.ndarray


@dataclass(frozen=True)
class Branch:
    """The part of a sequence after the prefix: L tokens, followed by the last of its C targets.

    token_ids: int32 [L], the rest of its prompt, and its completion without the last token, which predicts nothing.
    positions: int32 [3, L]. targets: int32 [C], the completion, predicted by the last C tokens of prefix and branch.
    kept: int32 [C, K], as in evidence.types.Trajectory.
    """

    token_ids: np.ndarray
    positions: np.ndarray
    targets: np.ndarray
    kept: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True)
class Unit:
    """K sequences with one prefix, which shows all `images` in order. token_ids: int32 [P], positions: int32 [3, P], of
    the prefix."""

    token_ids: np.ndarray
    positions: np.ndarray
    images: tuple[ImageSet, ...]
    branches: tuple[Branch, ...]

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return len(self.token_ids) + max(map(len, self.branches))


def sequence_tokens(prompt: int, completion: int) -> int:
    """Tokens that are run for a sequence: all except the last of its completion, which predicts nothing."""
    return prompt + completion - 1


def make_unit(
    prompts: Sequence[Prompt],
    completions: Sequence[np.ndarray],
    images: Sequence[tuple[str, Any]],
    kept: Sequence[np.ndarray | None] | None = None,
) -> Unit:
    """The unit of the sequences prompts[k] followed by completions[k] (int32 [C_k], C_k >= 1). `images`: (key, pixels)
    of the images that a prompt shows, in order: one array of its video or of all its images, or several arrays of
    equally many images each. `kept`: of each completion, as in evidence.types.Trajectory; None for the whole
    vocabulary.

    Raises ValueError if prompts differ in their images, or if an image comes after the shared prefix.
    """
    first, shared = prompts[0], common_prefix(prompts)
    if any(not np.array_equal(p.grids, first.grids) for p in prompts):
        raise ValueError("sequences of one unit must show the same images")
    if len(first.grids) and any(_axes_differ(p.positions[:, shared:]) for p in prompts):
        raise ValueError("an image comes after the shared prefix")
    return Unit(
        token_ids=first.token_ids[:shared],
        positions=first.positions[:, :shared],
        images=_image_sets(first, images),
        branches=tuple(
            _branch(p, c, k, shared)
            for p, c, k in zip(prompts, completions, kept or [None] * len(prompts), strict=True)
        ),
    )


def common_prefix(prompts: Sequence[Prompt]) -> int:
    """The number of leading token ids that all prompts share."""
    first = prompts[0].token_ids
    shared = min(len(p.token_ids) for p in prompts)
    for prompt in prompts[1:]:
        differs = np.flatnonzero(first[:shared] != prompt.token_ids[:shared])
        shared = int(differs[0]) if len(differs) else shared
    return shared


def _branch(prompt: Prompt, completion: np.ndarray, kept: np.ndarray | None, shared: int) -> Branch:
    after = int(prompt.positions.max()) + 1
    text = np.broadcast_to(np.arange(after, after + len(completion) - 1), (3, len(completion) - 1))
    return Branch(
        token_ids=np.concatenate([prompt.token_ids[shared:], completion[:-1]]),
        positions=np.concatenate([prompt.positions[:, shared:], text], axis=1),
        targets=completion,
        kept=kept,
    )


def _image_sets(prompt: Prompt, images: Sequence[tuple[str, Any]]) -> tuple[ImageSet, ...]:
    if not len(prompt.grids):
        return ()
    size = len(prompt.grids) // len(images)
    parts = [slice(n * size, (n + 1) * size) for n in range(len(images))]
    return tuple(
        ImageSet(key, pixels, prompt.grids[part], prompt.frame_counts[part])
        for (key, pixels), part in zip(images, parts)
    )


def _axes_differ(positions: np.ndarray) -> bool:
    """Whether the positions include an image: text has the same position on all three axes, an image of more than one
    token does not."""
    return bool((positions != positions[:1]).any())
