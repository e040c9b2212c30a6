"""The disk cache of frames returns exactly what was put, or nothing, and stays within its budget."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from full_disk import room

from evidence.types import FrameInfo
from rollout.frames.disk_cache import FrameCache


def entry(key: str, seed: int = 0) -> tuple[np.ndarray, FrameInfo]:
    frames = np.random.default_rng(seed).integers(0, 256, (3, 4, 6, 3), np.uint8)
    return frames, FrameInfo(key, (0.0, 0.5, 1.25), (6, 4), (640, 480), 1.5)


def test_an_entry_can_be_read_by_another_run(tmp_path: Path) -> None:
    frames, info = entry("a")
    FrameCache(tmp_path / "new" / "folder", 10**6).put(frames, info)
    cache = FrameCache(tmp_path / "new" / "folder", 10**6)
    cached_frames, cached_info = cache.get("a")
    np.testing.assert_array_equal(cached_frames, frames)
    assert cached_info == info
    assert cache.get("b") is None


def test_a_failed_write_leaves_no_unfinished_file(tmp_path: Path) -> None:
    (tmp_path / "a.frames").mkdir()
    with pytest.raises(OSError, match=r"a\.frames"):
        FrameCache(tmp_path, 10**6).put(*entry("a"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.frames"]


def test_a_full_disk_is_reported_and_costs_only_the_entry(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path, 10**6)
    cache.put(*entry("a"))
    with room(100), pytest.raises(OSError, match=r"File too large.*b\.frames"):
        cache.put(*entry("b"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.frames"], "and no unfinished file takes room"
    assert cache.get("a") is not None
    cache.put(*entry("b"))
    assert cache.get("b") is not None


@pytest.mark.parametrize("at", [0, 31, 32, 60, -1])
def test_an_entry_with_a_wrong_byte_is_removed(tmp_path: Path, at: int) -> None:
    cache = FrameCache(tmp_path, 10**6)
    cache.put(*entry("a"))
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    assert cache.get("a") is None
    assert not path.exists()


def test_an_entry_of_another_version_is_removed(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path, 10**6)
    cache.put(*entry("a"))
    (path,) = tmp_path.iterdir()
    body = path.read_bytes()[32:].replace(b'"duration"', b'"length"')
    path.write_bytes(hashlib.sha256(body).digest() + body)
    assert cache.get("a") is None
    assert not path.exists()


@pytest.mark.parametrize("length", [0, 10, 32, 100])
def test_a_truncated_entry_is_not_returned(tmp_path: Path, length: int) -> None:
    cache = FrameCache(tmp_path, 10**6)
    cache.put(*entry("a"))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:length])
    assert cache.get("a") is None


def test_the_folder_stays_within_its_budget_and_keeps_recently_used_entries(tmp_path: Path) -> None:
    size = 400
    budget = 32 * size
    caches = [FrameCache(tmp_path, budget) for _ in range(8)]
    (tmp_path / "killed.frames.1.part").write_bytes(b"x" * size)
    (tmp_path / "holiday.mp4").write_bytes(b"x" * 2 * budget)
    (tmp_path / "holiday.mp4.part").write_bytes(b"x" * size)
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    caches[0].put(*entry("used"))
    for number in range(100):
        caches[number % 8].put(*entry(f"{number}", number))
        assert caches[0].get("used") is not None
        assert sum(p.stat().st_size for p in tmp_path.glob("*.frames*")) <= budget
    assert not (tmp_path / "killed.frames.1.part").exists()
    for name in ("holiday.mp4", "holiday.mp4.part"):
        assert (tmp_path / name).exists(), "a file that does not belong to the cache"
    assert caches[0].get("99") is not None
    assert caches[0].get("0") is None
