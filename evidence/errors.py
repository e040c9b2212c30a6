"""The ways in which SER says no, so that a user never meets a stack trace for a mistake of their own."""

from __future__ import annotations


class BadInput(ValueError):
    """Input a person has to mend: the message is one line saying what, where, and what would be right.

    The command line prints it on stderr and ends with exit code 2.
    """


class RunFailed(RuntimeError):
    """A run that cannot go on, for a reason that one line says. The command line prints it and ends with code 1."""


class UnreadableMedia(RuntimeError):
    """A video or image that cannot be decoded: a counted outcome of its sample, never the end of a run."""

    def __init__(self, path: str, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[UnreadableMedia], tuple[str, str]]:
        return type(self), (self.path, self.reason)
