"""The runs of a sweep as processes of this machine.

Guarantees: Ctrl-C reaches the sweep alone, which asks each run to save a checkpoint; a run whose sweep was killed goes
on, and the next sweep finds it by the folder in its command line.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from orchestration.streams import say
from orchestration.sweeps.launching import Command, how_ended, last_line
from orchestration.sweeps.state import Ended, RunRecord

LOOK_S = 0.2
TAIL_BYTES = 2**16


class Processes:
    """logs: the folder of the runs' output. signals: returns how many signals have asked the sweep to end."""

    def __init__(self, logs: Path, signals: Callable[[], int]):
        self._logs, self._signals = logs, signals
        self.place = socket.gethostname()
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, job: str, command: Command) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        with (self._logs / f"{job}.log").open("ab") as log:
            self._children[job] = subprocess.Popen(
                command.arguments,
                env=os.environ | command.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def knows(self, job: str, command: Command) -> bool:
        return job in self._children or process_of(command.run_dir) is not None

    def ended(self, job: str, command: Command) -> Ended | None:
        child = self._children.get(job)
        if child is None:  # of a sweep that was killed
            return None if process_of(command.run_dir) else Ended("lost", "its sweep was killed")
        code = child.poll()
        if code is None:
            return None
        return how_ended(code, last_line(_tail(self._logs / f"{job}.log")))

    def where(self, job: str) -> str:
        return str(self._logs / f"{job}.log")

    def leave(self, running: Sequence[tuple[RunRecord, Command]]) -> bool:
        """Ask each run to save a checkpoint and end, and wait for that. A further signal is passed on."""
        names = ", ".join(run.name for run, _ in running)
        say(f"ser: asked to save a checkpoint and end: {names}; a second signal ends them at once")
        passed_on = 0
        while processes := [process for _, command in running if (process := process_of(command.run_dir))]:
            if self._signals() > passed_on:
                passed_on = self._signals()
                for process in processes:
                    with contextlib.suppress(psutil.Error):
                        process.terminate()
            for child in self._children.values():
                child.poll()
            time.sleep(LOOK_S)
        return True


def process_of(run_dir: Path) -> psutil.Process | None:
    """The `ser train` of this machine whose run has this folder, None if there is none."""
    for process in psutil.process_iter(["cmdline", "status"]):
        arguments = process.info["cmdline"] or []
        if f"run_dir={run_dir}" in arguments and "train" in arguments and process.info["status"] != "zombie":
            return process
    return None


def _tail(path: Path) -> str:
    with path.open("rb") as log:
        log.seek(max(0, os.fstat(log.fileno()).st_size - TAIL_BYTES))
        return log.read().decode("utf-8", "replace")
