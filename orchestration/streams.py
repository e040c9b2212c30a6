"""Standard streams that cannot be written: closed, a full disk, a file-size limit, a pipe whose reader has ended.

Guarantees: such a stream is never mistaken for a file that is opened later; output that is lost raises an OSError. A
command that runs for hours and whose result is in files goes on without stdout, and fails once its files are whole.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator

from evidence.errors import RunFailed
from evidence.files import is_failed_write

CLOSED = "stdout: is closed; redirect it, to /dev/null if nobody reads it"


def open_streams() -> None:
    """Open /dev/null in place of each standard descriptor that is closed: the next file would take its number, and
    whatever a library prints would be written into that file. Raises RunFailed if stdout is closed."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    if sys.stderr is None:  # print would write to stdout
        sys.stderr = io.TextIOWrapper(io.FileIO(os.devnull, "w"))
    if sys.stdout is None:
        sys.stdout = io.TextIOWrapper(io.FileIO(os.devnull, "w"))
        raise RunFailed(CLOSED)


def print_any_text() -> None:
    """Let stdout and stderr print every character in any locale: escaped on a terminal, as UTF-8 into files."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and (stream.encoding or "").lower().replace("-", "") != "utf8":
            if stream.isatty():
                stream.reconfigure(errors="backslashreplace")
            else:
                stream.reconfigure(encoding="utf-8", errors="surrogateescape")


def say(line: str) -> None:
    """Print one line on stderr, if it can be written."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr)
    flush_stderr()


def flush_stderr() -> None:
    """Drop what cannot be written to stderr: at exit, Python would try once more, fail and change the exit code."""
    try:
        sys.stderr.flush()
    except OSError:
        with contextlib.suppress(io.UnsupportedOperation):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


class _Stdout(io.FileIO):
    """A descriptor that names itself in its first failure and drops its output from then on: at exit, Python would try
    to write it once more and print a trace."""

    def __init__(self, descriptor: int, lasting: bool):
        super().__init__(descriptor, "w", closefd=False)
        self.lasting = lasting
        self.failure: OSError | None = None

    def write(self, data: bytes) -> int | None:  # type: ignore[override]
        if self.failure is None:
            try:
                return super().write(data)
            except OSError as error:
                error.filename = "stdout"
                self.failure = error
                if not self.lasting:
                    raise
        return len(data)


@contextlib.contextmanager
def guarded_stdout(lasting: bool) -> Iterator[None]:
    """Raise OSError if stdout cannot be written: at once, or, for a command that is `lasting`, at the end."""
    before = sys.stdout
    if not isinstance(before, io.TextIOWrapper) or before is not sys.__stdout__:  # replaced already
        yield
        return
    raw = _Stdout(before.fileno(), lasting)
    by_line = before.line_buffering or before.write_through
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(raw), before.encoding, before.errors, line_buffering=by_line)
    ending: SystemExit | None = None
    try:
        yield
    except SystemExit as error:  # after --help, whose parser ignores errors of its output
        ending = error
    finally:
        with contextlib.suppress(OSError):  # kept as raw.failure
            sys.stdout.flush()
        sys.stdout = before
    if raw.failure is not None:
        raise raw.failure
    if ending is not None:
        raise ending


def is_failed_output(error: OSError) -> bool:
    """Whether an error says that output cannot be written. Any other, such as a missing file, is a defect here."""
    return is_failed_write(error)


def described(error: OSError) -> str:
    """What cannot be written, and why."""
    reason = "its reader has ended" if error.errno == errno.EPIPE else error.strerror
    return f"{error.filename or 'a file'}: cannot be written ({reason})"
