"""Clips that were not written whole are never part of the embedded world."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

from rollout.dataset import shapes


def test_a_clip_that_is_cut_off_is_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    rng = np.random.default_rng(0)
    shapes.write_clip(path, shapes.draw_shapes(rng), rng, *shapes.rate_of(0))
    data = path.read_bytes()
    assert shapes.whole_mp4(data)
    assert not any(shapes.whole_mp4(data[:size]) for size in (0, 7, 100, len(data) // 2, len(data) - 1))


def test_a_file_size_limit_ends_it_in_one_line_without_a_folder(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    argv = [sys.executable, "-m", "orchestration", "data", "make-shapes", str(tmp_path / "world")]
    done = subprocess.run(
        [*argv, "--train", "3", "--val", "0", "--test", "0", "--workers", "1"],
        cwd=Path(__file__).parents[3],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "not written whole; is the disk full?" in done.stderr
    assert os.listdir(tmp_path) == []
