"""Clips that were not written whole are never part of the embedded world."""

from __future__ import annotations

import multiprocessing
import os
import resource
from pathlib import Path

import numpy as np
import pytest

from rollout.dataset import shapes


def test_a_clip_that_is_cut_off_is_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    rng = np.random.default_rng(0)
    shapes.write_clip(path, shapes.draw_shapes(rng), rng)
    data = path.read_bytes()
    assert shapes.whole_mp4(data)
    assert not any(shapes.whole_mp4(data[:size]) for size in (0, 7, 100, len(data) // 2, len(data) - 1))


def test_a_file_size_limit_ends_it_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def limited(*args: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    class Pool(shapes.ProcessPoolExecutor):
        def __init__(self, workers: int, context: multiprocessing.context.BaseContext):
            super().__init__(workers, context, initializer=limited)

    monkeypatch.setattr(shapes, "ProcessPoolExecutor", Pool)
    with pytest.raises(OSError, match=r"not written whole; is the disk full\?"):
        shapes.make_shapes(tmp_path / "world", train=3, val=0, test=0, workers=1)
    assert os.listdir(tmp_path) == []
