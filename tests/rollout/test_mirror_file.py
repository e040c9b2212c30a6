from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import pytest

from rollout.mirror_file import MirrorFile, MirrorMoved, MirrorPath, MirrorReader


def written(file: MirrorFile, version: int, value: int, nbytes: int = 1000) -> None:
    with file.changed(version, nbytes, 0.0) as data:
        data[:] = value


def hold_forever(where: MirrorPath, holding: Event) -> None:
    reader = MirrorReader(where, 1.0)
    assert reader.data[-1] == 7
    holding.set()
    time.sleep(600)


def test_a_reader_holds_its_version_and_a_change_waits_for_it() -> None:
    file = MirrorFile()
    assert file.version is None
    written(file, 1, 3)
    readers = [MirrorReader(file.where, 0.0) for _ in range(2)]
    for reader in readers:
        assert (reader.data == 3).all()
        assert not reader.data.flags.writeable
        with pytest.raises(TimeoutError, match="lock was not free"):
            written(file, 2, 4)
        reader.release()
    old = file.where
    written(file, 2, 4, nbytes=5000)
    with pytest.raises(MirrorMoved, match="holds weights 2, no longer 1"):
        MirrorReader(old, 0.0)
    assert (MirrorReader(file.where, 0.0).data == 4).sum() == 5000


def test_after_a_failed_change_there_is_no_version() -> None:
    file = MirrorFile()
    written(file, 1, 3)
    where = file.where
    with contextlib.suppress(OSError), file.changed(2, 1000, 0.0) as data:
        data[:10] = 9
        raise OSError
    assert file.version is None
    with pytest.raises(MirrorMoved, match="holds weights 0, no longer 1"):
        MirrorReader(where, 0.0)
    with file.changed(3, 1000, 0.0) as data:
        assert list(data[9:11]) == [9, 3], "it goes on from what is there"
    assert file.version == 3


def test_bytes_are_kept_from_one_change_to_the_next_and_zero_where_new() -> None:
    file = MirrorFile()
    written(file, 1, 3, nbytes=100)
    with file.changed(2, 200, 0.0) as data:
        assert np.array_equal(data, np.repeat([3, 0], 100))


def test_the_hold_of_a_reader_that_is_killed_ends() -> None:
    file = MirrorFile()
    written(file, 1, 7)
    spawn = multiprocessing.get_context("spawn")
    holding = spawn.Event()
    process = spawn.Process(target=hold_forever, args=(file.where, holding))
    process.start()
    try:
        assert holding.wait(60)
        with pytest.raises(TimeoutError):
            written(file, 2, 4)
    finally:
        process.kill()
        process.join(10)
    with file.changed(2, 1000, 10.0):
        pass
    assert file.version == 2


def test_nothing_is_left_when_owner_and_readers_are_gone() -> None:
    file = MirrorFile()
    written(file, 1, 7)
    reader, path = MirrorReader(file.where, 0.0), file.where.path
    held, mapped = os.stat(path), Path("/proc/self/maps").read_text
    del file
    assert not os.path.exists(path)
    assert (reader.data == 7).all(), "a reader keeps the memory"
    assert f" {held.st_ino} " in mapped()
    reader.release()
    del reader
    assert f" {held.st_ino} " not in mapped()
