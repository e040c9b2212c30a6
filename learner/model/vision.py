"""What a model is shown, on its way from pixels to the language model.

A frozen vision tower is replicated: it runs without collectives, so ranks may differ in what they encode, and what it
made of a clip is kept for as long as it fits, across micro-batches, steps and versions of the weights. A trained one is
sharded with the rest and is part of the policy's forward (learner/model/policy).
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
    """patches: float32 [p, values], as `Patcher.patches`; grids: int64 [n, 3], of n images and videos."""

    patches: torch.Tensor
    grids: torch.Tensor


class Features(NamedTuple):
    """What a tower makes of pixels, by merged token: [t, width] for the prompt, and, of a family with deepstack, as
    much for each of the language model's first layers."""

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
    """`deepstack`: whether the tower's family has features for the language model's first layers."""
    out = tower(shown.patches.to(next(tower.parameters()).dtype), grid_thw=shown.grids)
    return Features(out.pooler_output, tuple(out.deepstack_features) if deepstack else ())


def dummy_image(sizes: VisionSizes, device: torch.device) -> Pixels:
    """The smallest image there is, black: one merged token."""
    patches = torch.zeros(sizes.merge**2, sizes.patch_values, device=device)
    return Pixels(patches, torch.tensor([[1, sizes.merge, sizes.merge]], device=device))


class FeatureCache:
    """Least recently used out first; `limit` bytes at most. Counts what was found and what was not."""

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
    """A replicated vision tower and what it has seen. Not an nn.Module, so that ZeRO-3 leaves it alone."""

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
        """Of all the batch's image sets, of which there has to be one, in order.

        keys[i]: of the content of set i, which `images[i]()` fetches, uint8 [n, H, W, 3]; called only where the cache
        has no answer.
        """
        device = next(self.module.parameters()).device
        firsts = np.cumsum([0, *batch.set_sizes])
        sets = [slice(first, last) for first, last in pairwise(firsts)]
        # Two frames of a video share a step, those of images do not: the same content may be shown either way.
        keyed = [(key, int(batch.frame_counts[part.start])) for key, part in zip(keys, sets, strict=True)]
        found = [self.cache.get(key) for key in keyed]
        missed = [n for n, features in enumerate(found) if features is None]
        if missed:
            patches = [patcher.patches([images[n]()], batch.frame_counts[sets[n]]) for n in missed]
            grids = torch.from_numpy(np.concatenate([batch.grids[sets[n]] for n in missed]))
            made = encode(self.module, Pixels(torch.cat(patches).to(device), grids.to(device)), self.deepstack)
            for n, features in zip(missed, split(made, [len(part) // patcher.merge**2 for part in patches])):
                # A copy, in the host's memory: a view would keep all of the forward's alive.
                found[n] = copy = features.copied("cpu")
                self.cache.put(keyed[n], copy)
        return join([features for features in found if features is not None]).to(device)


def set_patches(batch: Batch) -> np.ndarray:
    """int64 [S]: patches of each of the batch's image sets."""
    parts = np.split(batch.grids.prod(1), np.cumsum(batch.set_sizes)[:-1])
    return np.array([part.sum() for part in parts[: len(batch.set_sizes)]], np.int64)


def place(features: Features, set_tokens: torch.Tensor, image_of: torch.Tensor) -> Features:
    """`features` of the image sets, of `set_tokens` [S] tokens each, where they stand: set image_of[m] at place m."""
    sets = split(features, set_tokens.tolist())
    return join([sets[n] for n in image_of.tolist()])


def split(features: Features, lengths: Sequence[int]) -> list[Features]:
    columns = [part.split(list(lengths)) for part in (features.tokens, *features.deepstack)]
    return [Features(tokens, tuple(deepstack)) for tokens, *deepstack in zip(*columns)]


def join(parts: Sequence[Features]) -> Features:
    tokens, *deepstack = (torch.cat(column) for column in zip(*((p.tokens, *p.deepstack) for p in parts)))
    return Features(tokens, tuple(deepstack))
