"""Files and folders that appear whole or not at all, whenever the process is killed.

Content is written beside its place, under a name that ends in `.part`, and renamed once it is on disk.
"""

from __future__ import annotations

import errno
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
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room for a file, wherever it is
PROBE_BYTES = 2**20


@contextmanager
def whole_file(path: Path, durable: bool = True, new: bool = False) -> Iterator[Path]:
    """A path to write to, which becomes `path` at the end of the block, in place of an old file.

    If the block fails, `path` stays as it was. A link is followed; a device or a pipe is written to directly.
    durable: wait until the content is on disk, so that it survives a power failure; without it the file may come back
    empty after one, but a killed process still leaves no half file.
    new: raise FileExistsError instead of replacing an old file, also one that appeared during the block.
    An OSError of the block names `path`, unless it names another file.
    """
    if path.exists() and not path.is_file():
        with naming(path):
            yield path
        return
    target = path.resolve()
    # Two processes may write the same file at once.
    part = target.with_name(f"{target.name}.{os.getpid()}{PART}")
    try:
        with naming(path):
            yield part
            if durable:
                _sync(part)
            if new:
                os.link(part, target)  # unlike a rename, fails if the name is taken
                part.unlink()
            else:
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
        with naming(path):
            yield part
            if path.exists():
                shutil.rmtree(path)
            part.rename(path)
    except BaseException as error:
        refused = None if isinstance(error, OSError) else _refused_write(part)
        if part.exists():
            shutil.rmtree(part)
        if refused is not None:
            raise OSError(refused.errno, refused.strerror, str(path)) from error
        raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an OSError of the block that names no file, as those of `write` do, name `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def _refused_write(folder: Path) -> OSError | None:
    """Why a file a little larger than the largest in `folder` cannot be written, if so. Libraries that write files by
    themselves, as safetensors and torch do, do not raise OSError for a full disk."""
    largest = max((path.stat().st_size for path in folder.rglob("*") if path.is_file()), default=0)
    try:
        with (folder / f"probe{PART}").open("wb") as probe:
            os.posix_fallocate(probe.fileno(), 0, largest + PROBE_BYTES)
    except OSError as error:
        return error
    return None


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
