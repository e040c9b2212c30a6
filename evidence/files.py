"""Files and folders that appear whole or not at all, whenever the process is killed.

Content is written beside its place, under a name that ends in `.part`, and renamed once it is on disk.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evidence.errors import BadInput

PART = ".part"
SOCKET_PATH = 107  # longest path of a Unix socket, in bytes
# Name of the socket by which Python's fork server listens, in the temporary folder.
FORK_SERVER = "/pymp-xxxxxxxx/listener-xxxxxxxx"


@contextmanager
def whole_file(path: Path, durable: bool = True) -> Iterator[Path]:
    """A path to write to, which becomes `path` at the end of the block, in place of an old file.

    If the block fails, `path` stays as it was. A link is followed; a device or a pipe is written to directly.
    durable: wait until the content is on disk, so that it survives a power failure; without it the file may come back
    empty after one, but a killed process still leaves no half file.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    target = path.resolve()
    # Two processes may write the same file at once.
    part = target.with_name(f"{target.name}.{os.getpid()}{PART}")
    try:
        yield part
        if durable:
            _sync(part)
        part.replace(target)
        if durable:
            _sync(target.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new, empty folder to fill, which becomes `path` at the end of the block, in place of an old folder.

    If the block fails, `path` stays as it was. What a killed process left of an earlier attempt is removed first. A
    process killed at the very end may have removed the old folder and not yet renamed the new one.
    """
    part = path.with_name(path.name + PART)
    if part.exists():
        shutil.rmtree(part)
    part.mkdir(parents=True)
    try:
        yield part
        if path.exists():
            shutil.rmtree(path)
        part.rename(path)
    except BaseException:
        if part.exists():
            shutil.rmtree(part)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file, whole."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def require_room_for_sockets(below: str, folder: str | None = None) -> None:
    """Raises BadInput, which names TMPDIR, if a socket at the path `below` the temporary folder (or another `folder`)
    would have a longer path than sockets can have."""
    folder = tempfile.gettempdir() if folder is None else folder
    longest = SOCKET_PATH - len(below)
    if len(os.fsencode(folder)) > longest:
        raise BadInput(
            f"TMPDIR = {folder}: too long for the sockets in it; set it to a folder of at most {longest} characters, "
            "such as TMPDIR=/tmp"
        )


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
