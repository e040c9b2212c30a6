"""A disk cache of decoded frames, so that a later run need not decode them again.

Guarantees: `get` returns exactly what was `put`, or None; an entry that does not match its digest is removed; a killed
writer leaves no entry; the folder stays within its budget with up to eight writing processes (trimming leaves that
much space). Several runs may share a folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evidence.files import PART, whole_file
from evidence.types import FrameInfo

SUFFIX = ".frames"
ABANDONED_S = 3600.0  # age of an unfinished file whose writer must have died


@dataclass
class FrameCache:
    """Entries by frame key: SHA-256 of the rest, then the FrameInfo as one line of JSON, then the pixels."""

    folder: Path
    budget_bytes: int
    _unaccounted: int = 0

    def get(self, key: str) -> tuple[np.ndarray, FrameInfo] | None:
        """(frames uint8 [n, H, W, 3], info), or None. Raises OSError if the entry cannot be read."""
        path = self.folder / (key + SUFFIX)
        try:
            entry = path.read_bytes()
        except FileNotFoundError:
            return None
        if hashlib.sha256(entry[32:]).digest() != entry[:32]:
            path.unlink(missing_ok=True)
            return None
        end = entry.index(b"\n", 32)
        header: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(entry[32:end]).items()
        }
        if header.keys() != FrameInfo.__dataclass_fields__.keys():  # written by another version of SER
            path.unlink(missing_ok=True)
            return None
        info = FrameInfo(**header)
        with contextlib.suppress(FileNotFoundError):  # another process may have removed it
            os.utime(path)  # trimming uses mtime, since not every file system keeps access times
        pixels = np.frombuffer(entry, np.uint8, offset=end + 1)
        return pixels.reshape(len(info.times), info.size[1], info.size[0], 3), info

    def put(self, frames: np.ndarray, info: FrameInfo) -> None:
        """Store an entry. Raises OSError if it cannot be written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        body = json.dumps(asdict(info)).encode() + b"\n" + frames.tobytes()
        # Not durable: an entry that a power failure damaged fails its checksum.
        with whole_file(self.folder / (info.key + SUFFIX), durable=False) as part:
            part.write_bytes(hashlib.sha256(body).digest() + body)
        self._unaccounted += len(body)
        if self._unaccounted > self.budget_bytes // 32:
            self._trim(self.budget_bytes * 3 // 4)
            self._unaccounted = 0

    def _trim(self, to_bytes: int) -> None:
        """Remove entries and files left by killed writers, least recently used first, until at most `to_bytes` remain.
        Other files in the folder are not touched."""
        files = []
        for entry in os.scandir(self.folder):
            with contextlib.suppress(FileNotFoundError):
                unfinished = f"{SUFFIX}." in entry.name and entry.name.endswith(PART)
                abandoned = unfinished and time.time() - entry.stat().st_mtime > ABANDONED_S
                if not entry.name.endswith(SUFFIX) and not abandoned:
                    continue
                files.append((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path))
        excess = sum(size for _, size, _ in files) - to_bytes
        for _, size, path in sorted(files):
            if excess <= 0:
                return
            Path(path).unlink(missing_ok=True)
            excess -= size
