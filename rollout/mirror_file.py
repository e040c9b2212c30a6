"""Bytes in shared memory that one process changes and others on the node map and read.

Guarantees: a reader sees the version that it asked for, whole, for as long as it holds it; a change waits for the
readers, and after one that failed there is no version. The kernel ends the hold of a reader that dies, and frees the
memory when the owner and all readers are gone, however they end: the file has no name, and is opened by way of the
owner's descriptor.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# The first bytes hold the version, int64, 0 for none. The others are aligned as in a bucket.
HEAD = 64
# Seconds between two attempts at the lock.
RETRY_S = 0.005


class MirrorMoved(RuntimeError):
    """The mirror holds another version by now, or none."""


@dataclass(frozen=True)
class MirrorPath:
    """Where a process of the node finds a mirror's file, and what it holds."""

    path: str
    version: int


class MirrorFile:
    """The owner's side."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.memfd_create("ser-weights"), "r+b")
        self._bytes = self._sized(0)

    @property
    def version(self) -> int | None:
        return int(self._bytes[:8].view(np.int64)[0]) or None

    @property
    def where(self) -> MirrorPath:
        assert self.version is not None
        return MirrorPath(f"/proc/{os.getpid()}/fd/{self._file.fileno()}", self.version)

    @contextlib.contextmanager
    def changed(self, version: int, nbytes: int, limit_s: float) -> Iterator[np.ndarray]:
        """Yield the bytes, uint8 [nbytes], as they are. They are `version` if the block ends without an error. Raises
        TimeoutError if readers hold them for longer than `limit_s` seconds."""
        _lock(self._file.fileno(), fcntl.LOCK_EX, limit_s)
        try:
            if self._bytes.nbytes != HEAD + nbytes:
                self._bytes = self._sized(nbytes)
            head = self._bytes[:8].view(np.int64)
            head[0] = 0
            yield self._bytes[HEAD:]
            head[0] = version
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _sized(self, nbytes: int) -> np.ndarray:
        """The mapped file, with this many bytes behind its head, all 0 where they are new."""
        os.ftruncate(self._file.fileno(), HEAD + nbytes)
        return np.frombuffer(mmap.mmap(self._file.fileno(), HEAD + nbytes), np.uint8)


class MirrorReader:
    """A hold on the version of a mirror, until `release`. data: its bytes, uint8 [nbytes], not to be written."""

    def __init__(self, where: MirrorPath, limit_s: float):
        """Raises MirrorMoved, TimeoutError if the mirror is being changed for so long, and OSError if it is gone."""
        self._file = open(where.path, "rb")  # noqa: SIM115
        _lock(self._file.fileno(), fcntl.LOCK_SH, limit_s)
        # Populated, it costs no page faults later, when an engine stands still to load it.
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        whole = np.frombuffer(mmap.mmap(self._file.fileno(), 0, flags=flags, prot=mmap.PROT_READ), np.uint8)
        held = int(whole[:8].view(np.int64)[0])
        if held != where.version:
            self.release()
            raise MirrorMoved(f"the mirror holds weights {held}, no longer {where.version}")
        self.data = whole[HEAD:]

    def release(self) -> None:
        """`data` may change from now on."""
        fcntl.flock(self._file, fcntl.LOCK_UN)
        self._file.close()


def _lock(descriptor: int, kind: int, limit_s: float) -> None:
    until = time.monotonic() + limit_s
    while True:
        try:
            return fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise TimeoutError(f"the mirror's lock was not free within {limit_s:.0f} s") from None
        time.sleep(RETRY_S)
