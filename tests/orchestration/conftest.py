"""Frame stores on a real object store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from small_clips import BOUND, CONTRACT, stop

from orchestration.decoder_pool import DecoderPool
from orchestration.frame_store import FrameStore
from orchestration.settings import FramesConfig


@pytest.fixture(scope="module")
def decoder(ray_cluster: Any) -> Iterator[DecoderPool]:
    """One process, started once, for every store that asks for nothing special."""
    pool = DecoderPool(1, timeout_s=60, memory_bytes=2**30)
    yield pool
    stop(pool)


@pytest.fixture
def store(decoder: DecoderPool) -> Iterator[Callable[..., FrameStore]]:
    made = []

    def make(budget: int = 10 * BOUND, holders: int = 1, **config: Any) -> FrameStore:
        one = FrameStore(CONTRACT, budget, FramesConfig(**{"workers": 1, **config}), holders)
        if {"worker_gib", "cache_dir"} & config.keys():
            made.append(one)
        else:
            one._pool = decoder
        return one

    yield make
    for one in made:
        stop(one._pool)
