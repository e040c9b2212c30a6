"""What a sweep asks of the place in which its runs are: a Ray cluster or this machine. Pure."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from evidence.errors import INTERRUPTED, RunFailed
from orchestration.sweeps.state import Ended, RunRecord


class Unreachable(RunFailed):
    """The cluster does not answer, or cannot take any job now. The message is one line."""


class Refused(RunFailed):
    """The cluster does not take this job. The message is one line."""


@dataclass(frozen=True)
class Command:
    """`ser train` as one run needs it. run_dir: its folder, by which its process is found again."""

    run_dir: Path
    arguments: tuple[str, ...]
    environment: dict[str, str]


class Launcher(Protocol):
    """Starts jobs and watches them. Every method may raise Unreachable. place: as in RunRecord."""

    @property
    def place(self) -> str: ...

    def start(self, job: str, command: Command) -> None:
        """Start a job under this id. A job that was started under it goes on. Raises Refused."""

    def knows(self, job: str, command: Command) -> bool:
        """Whether there is such a job, which goes on or has ended."""

    def ended(self, job: str, command: Command) -> Ended | None:
        """How the job ended, None while it goes on."""

    def where(self, job: str) -> str:
        """Where the job's output is, as a command or a path."""

    def leave(self, running: Sequence[tuple[RunRecord, Command]]) -> bool:
        """The sweep is asked to end. Asks the jobs to end and waits for that, or says that they go on and how to end
        them. Returns whether they were asked."""


def train_command(config: Path, overrides: Sequence[str]) -> tuple[str, ...]:
    """`ser train` with this Python, also where the command `ser` is not in the path."""
    return (sys.executable, "-m", "orchestration", "train", str(config), *overrides)


def how_ended(code: int, last_line: str) -> Ended:
    """How `ser train` ended by its exit code and the last line of its output."""
    reason = last_line.strip() or f"exit code {code}"
    if code == 0:
        return Ended("done")
    if code in (INTERRUPTED, -signal.SIGTERM):  # the latter before it handles signals
        return Ended("interrupted", reason)
    return Ended("bad_input" if code == 2 else "failed", reason)


def last_line(text: str) -> str:
    """The last line with content, "" if there is none."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
