"""Runs the runs of a sweep, at most `parallel` at once.

Guarantees: no run has two jobs at once; what is in sweep.json when the process is killed is enough to go on; a run that
fails does not keep the others from running; a cluster that does not answer is asked again for LOST_S.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from evidence.errors import Interrupted, RunFailed
from orchestration.run_report.glance import last_step
from orchestration.streams import say
from orchestration.sweeps.launching import Command, Launcher, Refused, Unreachable, train_command
from orchestration.sweeps.state import RUNS, Ended, RunRecord, SweepState

LOOK_S = 2.0  # between two looks at the jobs
LOST_S = 300.0
GROUP = "WANDB_RUN_GROUP"  # read by wandb


class Signals:
    """Ctrl-C and SIGTERM. count: how many have come."""

    def __init__(self) -> None:
        self.count = 0
        self._came = threading.Event()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._received) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def wait(self, seconds: float) -> None:
        """Wait until a signal comes, but no longer than this."""
        self._came.wait(seconds)

    def _received(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self._came.set()


class SweepRunner:
    """The runs of `state`, in `folder`, by `launcher`."""

    def __init__(
        self,
        state: SweepState,
        folder: Path,
        launcher: Launcher,
        signals: Signals,
        parallel: int,
        retries: int,
        look_s: float = LOOK_S,
        clock_s: Callable[[], float] = time.monotonic,
    ):
        self._state, self._folder, self._launcher, self._signals = state, folder, launcher, signals
        self._parallel, self._retries, self._look_s, self._clock_s = parallel, retries, look_s, clock_s
        self._lost_since: float | None = None

    def run(self, again: str) -> RunFailed | Interrupted | None:
        """Run what is left, and return how the sweep ends if not all runs are done. `again`: the command that goes on.

        Raises Interrupted after a signal if runs are left, and RunFailed if the cluster is lost.
        """
        self._forget_unknown()
        while self._left():
            self._try(self._look_and_start)
            if self._left():
                self._signals.wait(self._look_s)
                if self._signals.count:
                    self._leave(again)
        failed, stopped = list(self._state.of_status("failed")), list(self._state.of_status("stopped"))
        if failed:
            names = ", ".join(run.name for run in failed)
            return RunFailed(
                f"{self._folder}: {len(failed)} of {len(self._state.runs)} runs failed: {names}; once the cause is "
                f"removed, `{again} --retry-failed` goes on with them"
            )
        if stopped:
            names = ", ".join(run.name for run in stopped)
            return Interrupted(f"{self._folder}: stopped runs: {names}; `{again}` goes on with them")
        return None

    def _left(self) -> bool:
        return any(self._state.of_status("waiting", "running"))

    def _forget_unknown(self) -> None:
        """Start again the runs whose jobs were never started, or have gone with their cluster."""
        for run in self._state.of_status("running", "stopped"):
            if run.job is not None and self._launcher.knows(run.job, self._command(run)):
                say(f"{run.name}: found again: {self._launcher.where(run.job)}")
            else:
                run.status = "waiting"
        self._save()

    def _look_and_start(self) -> None:
        for run in list(self._state.of_status("running")):
            ended = self._launcher.ended(run.job or "", self._command(run))
            if ended is not None:
                self._note(run, ended)
        free = self._parallel - len(list(self._state.of_status("running")))
        for run in list(self._state.of_status("waiting"))[: max(0, free)]:
            self._start(run)

    def _note(self, run: RunRecord, ended: Ended, asked: bool = False) -> None:
        run.ended(ended, last_step(self._run_dir(run)), self._retries, asked)
        self._save()
        say(self._line(run))

    def _start(self, run: RunRecord) -> None:
        """Start a job of the run. One that the launcher may have taken, or may not, is started under the same id."""
        if run.job is None:
            run.starts += 1
            run.job = f"{self._state.id}-{run.name}-{run.starts}"
        run.place, run.status = self._launcher.place, "running"
        run.step = last_step(self._run_dir(run))
        self._save()
        try:
            self._launcher.start(run.job, self._command(run))
        except Unreachable:
            run.status = "waiting"
            self._save()
            raise
        except Refused as error:
            self._note(run, Ended("failed", str(error)))
            return
        say(f"{run.name}: started: {self._launcher.where(run.job)}")

    def _line(self, run: RunRecord) -> str:
        count = len(list(self._state.of_status("done")))
        what = {"waiting": "will be started again", "failed": "failed", "stopped": "was stopped"}.get(run.status)
        if what is None:
            return f"{run.name}: done, {count} of {len(self._state.runs)}"
        return f"{run.name}: {what}: {run.reason}"

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Unreachable as error:
            if self._lost_since is None:
                self._lost_since = self._clock_s()
                say(f"ser: {error}; asked again for {LOST_S:g} s")
            elif self._clock_s() - self._lost_since > LOST_S:
                raise RunFailed(f"{error}; jobs that run go on, and the same command finds them again") from None
        else:
            self._lost_since = None

    def _leave(self, again: str) -> None:
        """Raises Interrupted, unless no run is left."""
        running = [(run, self._command(run)) for run in self._state.of_status("running")]
        if running and self._launcher.leave(running):
            for run, command in running:
                ended = self._launcher.ended(run.job or "", command)
                if ended is not None:
                    self._note(run, ended, asked=True)
        if not self._left():
            return
        done = len(list(self._state.of_status("done")))
        raise Interrupted(f"{self._folder}: {done} of {len(self._state.runs)} runs are done; `{again}` goes on")

    def _command(self, run: RunRecord) -> Command:
        run_dir = self._run_dir(run)
        overrides = [*run.overrides, f"run_dir={run_dir}", "resume=auto"]
        environment = {GROUP: self._folder.name}
        return Command(run_dir, train_command(Path(self._state.config), overrides), environment)

    def _run_dir(self, run: RunRecord) -> Path:
        return self._folder / RUNS / run.name

    def _save(self) -> None:
        self._state.write(self._folder)
