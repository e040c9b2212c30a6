"""Answers already given, by everything that could change them: in memory, and on disk where a folder is given.

Guarantees: two questions share an entry only if referee, wording, kind, text and pixels are the same. What is kept is
the distribution over the scale: readings and calibrations are applied to it each time, so that neither can be stale.
At most `capacity` entries are kept in memory, the least recently used one goes first. Pure.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from array import array
from collections import OrderedDict
from dataclasses import astuple, dataclass
from pathlib import Path

from evidence.errors import BadInput

Answer = tuple[float, ...]

FILE = "verdicts.sqlite"
# Another process holds the file for no longer than a transaction, so this much says that something is wrong with it.
START_WAIT_S = 5.0
# An event loop waits meanwhile; what could not be written is counted, and only asked again another day.
WAIT_S = 0.05


@dataclass(frozen=True)
class VerdictKey:
    """`referee`: its digest and setting. `wording`: the version. `text`: the turn's texts as put to it, which hold
    question, phrase and frame time. `pixels`: frame key, frame index, drawn box, crop size and margin, which decide
    both images; None where none are shown."""

    referee: tuple[str, str]
    wording: str
    kind: str
    text: tuple[str, ...]
    pixels: tuple[str, int, tuple[int, int, int, int], tuple[int, int], float] | None

    def digest(self) -> bytes:
        return hashlib.sha256(json.dumps(astuple(self)).encode()).digest()


class VerdictCache:
    """A bounded map from VerdictKey to a distribution, with `disk` behind it if there is one."""

    def __init__(self, capacity: int, disk: DiskCache | None = None):
        self.capacity, self.disk = capacity, disk
        self._entries: OrderedDict[VerdictKey, Answer] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: VerdictKey) -> Answer | None:
        answer = self._entries.get(key)
        if answer is not None:
            self._entries.move_to_end(key)
        elif self.disk is not None and (answer := self.disk.get(key)) is not None:
            self._keep(key, answer)
        return answer

    def put(self, key: VerdictKey, answer: Answer) -> None:
        self._keep(key, answer)
        if self.disk is not None:
            self.disk.put(key, answer)

    def forget(self) -> None:
        """Empty the memory; the disk keeps what it has, which is what it is for."""
        self._entries.clear()

    def _keep(self, key: VerdictKey, answer: Answer) -> None:
        self._entries[key] = answer
        self._entries.move_to_end(key)
        if len(self._entries) > self.capacity:
            self._entries.popitem(last=False)


class DiskCache:
    """One SQLite file that several processes of one machine may share, and later runs."""

    def __init__(self, folder: str | Path):
        """Raises BadInput if the file there is none of ours, or is held by someone else."""
        self.failures = 0
        self.path = Path(folder) / FILE
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Each statement is a transaction of its own.
            self._file = sqlite3.connect(self.path, timeout=START_WAIT_S, isolation_level=None)
            self._file.execute("PRAGMA journal_mode=WAL")  # readers and a writer do not wait for each other
            self._file.execute("PRAGMA synchronous=NORMAL")
            self._file.execute("CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, answer BLOB) WITHOUT ROWID")
            self._file.execute("BEGIN IMMEDIATE")  # whether it can be written to
            self._file.execute("SELECT key, answer FROM answers LIMIT 1").fetchone()
            self._file.execute("ROLLBACK")
            self._file.execute(f"PRAGMA busy_timeout={round(1000 * WAIT_S)}")
        except (sqlite3.Error, OSError) as error:
            raise BadInput(
                f"referee.cache_dir = {folder}: {self.path} cannot be used ({error}); remove that file if no other "
                "run uses it, or name another folder"
            ) from None

    def get(self, key: VerdictKey) -> Answer | None:
        """None also where it cannot be read, which is counted."""
        try:
            found = self._file.execute("SELECT answer FROM answers WHERE key = ?", (key.digest(),)).fetchone()
        except sqlite3.Error:
            self.failures += 1
            return None
        return tuple(array("f", found[0])) if found else None

    def put(self, key: VerdictKey, answer: Answer) -> None:
        try:
            row = (key.digest(), array("f", answer).tobytes())
            self._file.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", row)
        except sqlite3.Error:
            self.failures += 1

    def close(self) -> None:
        self._file.close()
