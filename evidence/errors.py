"""Errors that end in one clear line instead of a stack trace."""

from __future__ import annotations


class BadInput(ValueError):
    """Input that the user must correct. The message is one line: what is wrong, where, and what would be right.

    The command line prints it on stderr and exits with code 2.
    """


class RunFailed(RuntimeError):
    """A run that cannot continue. The message is one line; the command line prints it and exits with code 1."""


# Exit code of a run that was asked to end and can be resumed (EX_TEMPFAIL of sysexits.h).
INTERRUPTED = 75


class Interrupted(Exception):
    """A run that was asked to end, and has saved what it needs to go on.

    The message is one line; the command line prints it and exits with code INTERRUPTED.
    """


class UnreadableMedia(RuntimeError):
    """A video or image that cannot be decoded: a counted outcome of its sample that never ends a run."""

    def __init__(self, path: str, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[UnreadableMedia], tuple[str, str]]:
        return type(self), (self.path, self.reason)
