"""Decoded frames on disk, so that a later run need not decode them again.

Guarantees: what `get` returns is what `put` was given, whole, or nothing: an entry that does not match its digest, for
whatever reason, is removed; a killed writer leaves no entry; the folder stays within its budget with up to eight
processes writing (the trims below leave that much room). Several runs may share a folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from evidence.types import FrameInfo

SUFFIX = ".frames"
UNFINISHED = ".frames.tmp"
ABANDONED_S = 3600.0  # nobody writes one entry for that long


@dataclass
class FrameCache:
    """Entries by frame key: a digest, then one line of JSON about the frames, then their pixels. The digest is of all
    that follows it."""

    folder: Path
    budget_bytes: int
    _unaccounted: int = 0

    def get(self, key: str) -> tuple[np.ndarray, FrameInfo] | None:
        """(frames uint8 [n, H, W, 3], info)."""
        path = self.folder / (key + SUFFIX)
        try:
            entry = path.read_bytes()
        except FileNotFoundError:
            return None
        if hashlib.sha256(entry[32:]).digest() != entry[:32]:
            path.unlink(missing_ok=True)
            return None
        end = entry.index(b"\n", 32)
        about = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(entry[32:end]).items()}
        if about.keys() != FrameInfo.__dataclass_fields__.keys():  # another version of SER wrote it
            path.unlink(missing_ok=True)
            return None
        info = FrameInfo(**about)
        with contextlib.suppress(FileNotFoundError):  # another process may just have removed it
            os.utime(path)  # trimming goes by it: access times are not kept everywhere
        pixels = np.frombuffer(entry, np.uint8, offset=end + 1)
        return pixels.reshape(len(info.times), info.size[1], info.size[0], 3), info

    def put(self, frames: np.ndarray, info: FrameInfo) -> None:
        """Raises OSError where it cannot be written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        body = json.dumps(asdict(info)).encode() + b"\n" + frames.tobytes()
        unfinished = self.folder / f"{info.key}.{os.getpid()}{UNFINISHED}"
        try:
            unfinished.write_bytes(hashlib.sha256(body).digest() + body)
            unfinished.replace(self.folder / (info.key + SUFFIX))
        except OSError:
            unfinished.unlink(missing_ok=True)  # on a full disk, what is half written would only take more of it
            raise
        self._unaccounted += len(body)
        if self._unaccounted > self.budget_bytes // 32:
            self._trim(self.budget_bytes * 3 // 4)
            self._unaccounted = 0

    def _trim(self, to_bytes: int) -> None:
        """Remove what was not used for longest, and what a killed writer left, until at most `to_bytes` are there.
        Other files of the folder are not ours."""
        found = []
        for entry in os.scandir(self.folder):
            with contextlib.suppress(FileNotFoundError):
                left = entry.name.endswith(UNFINISHED) and time.time() - entry.stat().st_mtime > ABANDONED_S
                if not entry.name.endswith(SUFFIX) and not left:
                    continue
                found.append((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path))
        excess = sum(size for _, size, _ in found) - to_bytes
        for _, size, path in sorted(found):
            if excess <= 0:
                return
            Path(path).unlink(missing_ok=True)
            excess -= size
