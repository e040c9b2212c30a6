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
WRITE_ERRORS = (*FULL, errno.EPIPE, errno.EROFS, errno.EIO, errno.EBADF)  # raised where something is written
FAILED_WRITE = "failed_write"  # attribute of an OSError that `naming` has marked
# How file systems without hard links refuse one.
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
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
                sync(part)
            if new:
                _rename_to_new(part, target)
            else:
                part.replace(target)
            if durable:
                sync(target.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(path: Path, durable: bool = True) -> Iterator[Path]:
    """A new, empty folder to fill, which becomes `path` at the end of the block, in place of an old folder.

    If the block fails, `path` stays as it was. What a killed process left of an earlier attempt is removed first. A
    process killed at the very end may have removed the old folder and not yet renamed the new one. durable: as for
    `whole_file`.
    """
    part = path.with_name(path.name + PART)
    with naming(path):
        if part.exists():
            shutil.rmtree(part)
        part.mkdir(parents=True)
    try:
        with naming(path):
            yield part
            if durable:
                for inner in (*part.rglob("*"), part):
                    sync(inner)
            if path.exists():
                shutil.rmtree(path)
            part.rename(path)
            if durable:
                sync(path.parent)
    except BaseException as error:
        refused = None if isinstance(error, OSError) else _refused_write(part)
        if part.exists():
            shutil.rmtree(part)
        if refused is not None:
            raise OSError(refused.errno, refused.strerror, str(path)) from error
        raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an OSError of the block that names no file, as those of `write` do, name `path`. An error that names `path`,
    one of its folders or a file that becomes it is marked as a failure to write (`is_failed_write`)."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        named, places = str(error.filename), (path.absolute(), path.resolve())
        own = any(named == str(folder) for place in (path, *places) for folder in place.parents)
        own = own or named.startswith((str(path), *map(str, places)))
        if own and not isinstance(error, ConnectionError | TimeoutError):
            vars(error)[FAILED_WRITE] = True
        raise


def is_failed_write(error: OSError) -> bool:
    """Whether an error says that output cannot be written: by its number, or as `naming` marked it."""
    return error.errno in WRITE_ERRORS or FAILED_WRITE in vars(error)


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


def require_room_for_sockets(below: str, folder: str | None = None, variable: str = "TMPDIR") -> None:
    """Raises BadInput if a socket at the path `below` the temporary folder (or another `folder`) would have a longer
    path than sockets can have. `variable`: the environment variable that sets the folder."""
    folder = tempfile.gettempdir() if folder is None else folder
    longest = SOCKET_PATH - len(below)
    if len(os.fsencode(folder)) > longest:
        raise BadInput(
            f"{variable} = {folder}: too long for the sockets in it; set it to a folder of at most {longest} "
            f"characters, such as {variable}=/tmp"
        )


def _rename_to_new(part: Path, target: Path) -> None:
    """Rename a file. Raises FileExistsError if the name is taken, which a plain rename would replace.

    Without hard links (mounted buckets, FAT), the name is reserved by an empty file, which a process killed at this
    point leaves behind.
    """
    try:
        os.link(part, target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        part.replace(target)
    else:
        part.unlink()


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
