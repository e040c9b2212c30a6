"""Visual features, from pixels to the embeddings of the language model.

A frozen vision tower is replicated. It runs without collectives, so ranks may encode different clips, and its features
are cached across micro-batches, steps and weight versions as long as they fit. A trained tower is sharded with the rest
of the model and is part of the policy's forward (learner/model/policy).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from evidence.families import VisionSizes
from learner.model.patches import Patcher
from learner.packing.batch import Batch


class Pixels(NamedTuple):
    """patches: float32 [p, values], from `Patcher.patches`; grids: int64 [n, 3], of n images and videos."""

    patches: torch.Tensor
    grids: torch.Tensor


class Features(NamedTuple):
    """Output of a vision tower, one row per merged token: [t, width] for the prompt and, with deepstack, as many for
    each of the language model's first layers."""

    tokens: torch.Tensor
    deepstack: tuple[torch.Tensor, ...] = ()

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in (self.tokens, *self.deepstack))

    def to(self, device: torch.device) -> Features:
        return Features(self.tokens.to(device), tuple(part.to(device) for part in self.deepstack))

    def copied(self, device: str) -> Features:
        tokens, *deepstack = (part.to(device, copy=True) for part in (self.tokens, *self.deepstack))
        return Features(tokens, tuple(deepstack))


def encode(tower: nn.Module, shown: Pixels, deepstack: bool) -> Features:
    """Run the tower. deepstack: whether its family gives features for the language model's first layers."""
    out = tower(shown.patches.to(next(tower.parameters()).dtype), grid_thw=shown.grids)
    return Features(out.pooler_output, tuple(out.deepstack_features) if deepstack else ())


def dummy_image(sizes: VisionSizes, device: torch.device) -> Pixels:
    """The smallest image, black: one merged token."""
    patches = torch.zeros(sizes.merge**2, sizes.patch_values, device=device)
    return Pixels(patches, torch.tensor([[1, sizes.merge, sizes.merge]], device=device))


class FeatureCache:
    """An LRU cache of at most `limit` bytes, which counts hits and misses."""

    def __init__(self, limit: int):
        self.limit, self.nbytes = limit, 0
        self.hits = self.misses = 0
        self.held: OrderedDict[Hashable, Features] = OrderedDict()

    def get(self, key: Hashable) -> Features | None:
        if key not in self.held:
            self.misses += 1
            return None
        self.hits += 1
        self.held.move_to_end(key)
        return self.held[key]

    def put(self, key: Hashable, features: Features) -> None:
        if key in self.held or features.nbytes > self.limit:
            return
        self.held[key] = features
        self.nbytes += features.nbytes
        while self.nbytes > self.limit:
            _, oldest = self.held.popitem(last=False)
            self.nbytes -= oldest.nbytes


class FrozenTower:
    """A replicated vision tower with a cache of its features. Not an nn.Module, so that ZeRO-3 does not shard it."""

    def __init__(self, module: nn.Module, deepstack: bool, cache_bytes: int):
        self.module = module.requires_grad_(False)
        self.deepstack = deepstack
        self.cache = FeatureCache(cache_bytes)

    @torch.no_grad()
    def features(
        self,
        batch: Batch,
        keys: Sequence[str],
        images: Sequence[Callable[[], np.ndarray]],
        patcher: Patcher,
    ) -> Features:
        """Features of all image sets of the batch, in order. The batch must have at least one.

        keys[i]: content address of set i. images[i]: fetches its frames, uint8 [n, H, W, 3]; only called on a miss.
        """
        device = next(self.module.parameters()).device
        firsts = np.cumsum([0, *batch.set_sizes])
        sets = [slice(first, last) for first, last in pairwise(firsts)]
        # Frames of a video share steps and images do not, so the same content has other features when shown as video.
        keyed = [(key, int(batch.frame_counts[part.start])) for key, part in zip(keys, sets, strict=True)]
        cached = [self.cache.get(key) for key in keyed]
        missed = [n for n, features in enumerate(cached) if features is None]
        if missed:
            patches = [patcher.patches([images[n]()], batch.frame_counts[sets[n]]) for n in missed]
            grids = torch.from_numpy(np.concatenate([batch.grids[sets[n]] for n in missed]))
            encoded = encode(self.module, Pixels(torch.cat(patches).to(device), grids.to(device)), self.deepstack)
            for n, features in zip(missed, split(encoded, [len(part) // patcher.merge**2 for part in patches])):
                # A copy in host memory: a view would keep the whole forward's output alive.
                cached[n] = copy = features.copied("cpu")
                self.cache.put(keyed[n], copy)
        return join([features for features in cached if features is not None]).to(device)


def set_patches(batch: Batch) -> np.ndarray:
    """int64 [S]: number of patches in each image set of the batch."""
    parts = np.split(batch.grids.prod(1), np.cumsum(batch.set_sizes)[:-1])
    return np.array([part.sum() for part in parts[: len(batch.set_sizes)]], np.int64)


def place(features: Features, set_tokens: torch.Tensor, image_of: torch.Tensor) -> Features:
    """Features in the order of the rows: those of image set image_of[m] at place m. set_tokens: int64 [S], tokens of
    each set in `features`."""
    sets = split(features, set_tokens.tolist())
    return join([sets[n] for n in image_of.tolist()])


def split(features: Features, lengths: Sequence[int]) -> list[Features]:
    """Consecutive parts of `lengths` tokens."""
    columns = [part.split(list(lengths)) for part in (features.tokens, *features.deepstack)]
    return [Features(tokens, tuple(deepstack)) for tokens, *deepstack in zip(*columns)]


def join(parts: Sequence[Features]) -> Features:
    """The reverse of `split`."""
    tokens, *deepstack = (torch.cat(column) for column in zip(*((p.tokens, *p.deepstack) for p in parts)))
    return Features(tokens, tuple(deepstack))
