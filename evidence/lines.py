"""Append-only files of JSON lines, one object each, that survive a full disk.

Guarantees of `AppendedLines`, which must be the only writer of its file:
- when `write` returns and `failed` has not risen, the lines are in the file, whole and handed to the operating system;
- a write for which there is no room (`NO_ROOM`) raises nothing: a line written in part is taken back, and it and those
  after it wait in memory, in their order, until a later write, or `close`, finds room;
- the lines that wait take a bounded number of bytes; above it the oldest are dropped and counted.

If a part of a line cannot be taken back either, the next line starts on a line of its own, and `records` and `keep`
skip the part. Any other error is raised and names the file.
"""

from __future__ import annotations

import errno
import json
import logging
import mmap
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from io import FileIO
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO

from evidence.files import FULL, naming, whole_file

NO_ROOM = (*FULL, errno.EIO)  # a file system may have room, or answer, again
# Hours of metrics and samples, and little beside what a run holds in memory anyway.
WAITING_BYTES = 64 * 2**20
BLOCK = 2**16

log = logging.getLogger(__name__)


class AppendedLines:
    """The writer of one file. `failed`: the writes that failed. `dropped`: lines given up because too many waited."""

    def __init__(self, path: Path, most_waiting_bytes: int = WAITING_BYTES) -> None:
        """Opens the file, or creates it, and cuts off a last line that a killed process left unfinished."""
        self.path = path
        self.failed = self.dropped = 0
        self._most_waiting_bytes = most_waiting_bytes
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._failing = False
        with naming(path):
            self._file = self._open()

    @property
    def waiting(self) -> int:
        """The number of lines in memory that are not in the file yet."""
        return len(self._waiting)

    def write(self, lines: Iterable[str]) -> None:
        """Append lines, each a JSON object without its line end, after those that wait.

        If the file was removed or replaced, it is created again. Raises OSError, but not for want of room.
        """
        for line in lines:
            self._waiting.append(line.encode() + b"\n")
            self._waiting_bytes += len(self._waiting[-1])
        self._try(self._append_waiting)
        while self._waiting_bytes > self._most_waiting_bytes:
            self._waiting_bytes -= len(self._waiting.popleft())
            self.dropped += 1

    def sync(self) -> bool:
        """Write what waits, and wait until all is on disk, so that it survives a power failure. Returns whether it
        is."""
        written = not self._waiting or self._try(self._append_waiting)
        return written and self._try(lambda: os.fsync(self._file.fileno()))

    def keep(self, wanted: Callable[[dict[str, Any]], bool]) -> None:
        """Drop the lines whose objects are not `wanted`. Those at the end are cut off, which needs no room; otherwise
        the file is rewritten. Raises OSError, also for want of room; the file stays as it was then."""
        self._try(self._append_waiting)
        with self.path.open("rb") as lines:
            begin = sum(len(line) for line in takewhile(partial(_is_wanted, wanted), lines))
            lines.seek(begin)
            if any(_is_wanted(wanted, line) for line in lines):
                lines.seek(0)
                with whole_file(self.path) as part, part.open("wb") as kept:
                    kept.writelines(line for line in lines if _is_wanted(wanted, line))
            else:
                os.truncate(self.path, begin)
        self._waiting = deque(line for line in self._waiting if wanted(json.loads(line)))
        self._waiting_bytes = sum(map(len, self._waiting))
        with naming(self.path):
            self._reopen()

    def close(self) -> None:
        """Close the file. Warns of lines for which there is still no room: they are lost."""
        try:
            self._try(self._append_waiting)
        finally:
            if self._waiting:
                log.warning("%s: %d lines could not be written and are lost", self.path, len(self._waiting))
            self._try(self._file.close)

    def _try(self, action: Callable[[], object]) -> bool:
        """Run `action`. Returns False after a failure for want of room, which is counted; warns of the first in a row,
        and of the end of the row. Raises any other OSError, naming the file."""
        try:
            with naming(self.path):
                action()
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            self.failed += 1
            if not self._failing:
                reason = error.strerror
                log.warning("%s: cannot be written (%s); its lines wait in memory for room", self.path, reason)
            self._failing = True
            return False
        else:
            if self._failing and not self._waiting:
                self._failing = False
                log.warning("%s: can be written again; lines lost meanwhile: %d", self.path, self.dropped)
            return True

    def _open(self) -> FileIO:
        file = FileIO(self.path, "ab")
        size = self._length = os.fstat(file.fileno()).st_size
        self._torn = False
        if size:
            with self.path.open("rb") as lines:
                self._length = _whole_length(lines, size)
        if self._length < size:
            file.truncate(self._length)
        return file

    def _reopen(self) -> None:
        before, self._file = self._file, self._open()
        before.close()

    def _append_waiting(self) -> None:
        if not self._in_place():
            self._reopen()
        while self._waiting:
            self._append(self._waiting[0])
            self._waiting_bytes -= len(self._waiting.popleft())

    def _in_place(self) -> bool:
        """Whether the open file still lies at its path."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False

    def _append(self, line: bytes) -> None:
        if self._torn:
            self._take_back()
        rest = memoryview(b"\n" + line if self._torn else line)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._take_back()
            raise
        self._length = os.fstat(self._file.fileno()).st_size
        self._torn = False

    def _take_back(self) -> None:
        """Cut off what was written of a line."""
        try:
            self._file.truncate(self._length)
            self._torn = False
        except OSError:
            self._torn = True


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines, without lines that were written in part."""
    with path.open("rb") as lines:
        yield from (record for line in lines if (record := _record(line)) is not None)


def records_from_last(path: Path, beginning: bytes) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines, from the last whole line on that starts with `beginning`; all, if none does.
    Does not read what comes before."""
    with path.open("rb") as lines:
        size = os.fstat(lines.fileno()).st_size
        if size:
            with mmap.mmap(lines.fileno(), size, access=mmap.ACCESS_READ) as content:
                lines.seek(_last_whole(content, beginning))
        yield from (record for line in lines if (record := _record(line)) is not None)


def _last_whole(content: mmap.mmap, beginning: bytes) -> int:
    """Where the last whole line starts that begins so; 0 if none does."""
    end = len(content)
    while (before := content.rfind(b"\n" + beginning, 0, end)) >= 0:
        content.seek(before + 1)
        if _record(content.readline()) is not None:
            return before + 1
        end = before
    return 0


def _record(line: bytes) -> dict[str, Any] | None:
    """The object of a line, None for one that was written in part."""
    try:
        record = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _is_wanted(wanted: Callable[[dict[str, Any]], bool], line: bytes) -> bool:
    record = _record(line)
    return record is not None and wanted(record)


def _whole_length(lines: BinaryIO, size: int) -> int:
    """Where the last line of a file of `size` bytes ends, or begins if it was written in part."""
    end = _after_newline(lines, size)
    start = _after_newline(lines, end - 1)
    lines.seek(start)
    return end if end == start or _record(lines.read(end - start)) is not None else start


def _after_newline(lines: BinaryIO, before: int) -> int:
    """The place after the last newline before the place `before`, 0 if there is none."""
    while before > 0:
        start = max(0, before - BLOCK)
        lines.seek(start)
        newline = lines.read(before - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        before = start
    return 0
