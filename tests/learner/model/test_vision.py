"""Features of a frozen tower: cached ones equal computed ones, and the cache keeps to its limit."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shown import plain_policy

from learner.model.patches import Patcher
from learner.model.vision import FeatureCache, Features, FrozenTower, Pixels, encode
from learner.packing.shared_prefix import Unit, make_unit
from learner.packing.step import lay_out
from learner.settings import PackingConfig, PolicyConfig
from rollout.prompt import NativeVideo


def features(nbytes: int) -> Features:
    return Features(torch.zeros(nbytes, dtype=torch.uint8))


def test_the_cache_evicts_the_least_recently_used_and_keeps_its_limit() -> None:
    cache = FeatureCache(limit=10)
    for key, size in (("a", 4), ("b", 4)):
        assert cache.get(key) is None
        cache.put(key, features(size))
    assert cache.get("a") is not None
    cache.put("c", features(4))
    assert cache.get("b") is None, "a was used since"
    assert cache.get("a") is not None
    cache.put("huge", features(11))
    assert (list(cache.held), cache.nbytes, cache.hits, cache.misses) == (["c", "a"], 8, 2, 3)


def test_cached_features_equal_those_of_the_tower(either_model: Path, either_encoder: Any) -> None:
    policy, patcher = plain_policy(either_model, either_encoder, PolicyConfig()), Patcher.of_model(either_model)
    deepstack = policy.family.deepstack
    tower = FrozenTower(policy.take_tower(), deepstack, cache_bytes=1 << 20)
    side = 2 * patcher.patch * patcher.merge
    image, video, other = (
        shown_unit(either_encoder, side, kind, seed) for kind, seed in (("image", 1), ("video", 1), ("image", 3))
    )
    for units, fetched in (
        ([image], 1),
        ([image], 0),
        ([video], 1),  # the same frames as a video have other features
        ([other, video], 1),
        ([image, other], 0),
    ):
        (layout,) = lay_out(units, 1, PackingConfig())[0]
        calls: list[np.ndarray] = []

        def fetch(image: np.ndarray, calls: list[np.ndarray] = calls) -> np.ndarray:
            calls.append(image)
            return image

        images = [partial(fetch, image) for image in layout.images]
        features = tower.features(layout.batch, layout.image_keys, images, patcher)
        assert len(calls) == fetched
        patches = patcher.patches(layout.images, layout.batch.frame_counts)
        with torch.no_grad():
            whole = encode(tower.module, Pixels(patches, torch.from_numpy(layout.batch.grids)), deepstack)
        torch.testing.assert_close(features, whole, atol=1e-5, rtol=1e-5)
    assert (tower.cache.hits, tower.cache.misses) == (4, 3)


def shown_unit(encoder: Any, side: int, kind: str, seed: int) -> Unit:
    """One completion after three frames, shown as images or as a video. Equal seeds give equal frames and keys."""
    frames = np.random.default_rng(seed).integers(0, 255, (3, side, side, 3), dtype=np.uint8)
    slots = [(side, side)] * 3 if kind == "image" else [NativeVideo((side, side), (0, 1, 2))]
    return make_unit([encoder.encode([*slots, "What?"])], [np.array([1], np.int32)], [(f"{seed}", frames)])
