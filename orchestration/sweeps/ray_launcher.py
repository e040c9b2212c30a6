"""The runs of a sweep as jobs of a Ray cluster, which go on when the sweep ends."""

from __future__ import annotations

from collections.abc import Sequence

from orchestration.ray_jobs import Jobs, entrypoint, is_over, was_stopped
from orchestration.streams import say
from orchestration.sweeps.launching import Command, how_ended, last_line
from orchestration.sweeps.state import Ended, RunRecord


class RayJobs:
    """jobs: of the cluster."""

    def __init__(self, jobs: Jobs):
        self._jobs, self.place = jobs, jobs.address.rstrip("/")

    def start(self, job: str, command: Command) -> None:
        self._jobs.submit(job, entrypoint(command.arguments, command.environment))

    def knows(self, job: str, command: Command) -> bool:
        return self._jobs.info(job) is not None

    def ended(self, job: str, command: Command) -> Ended | None:
        info = self._jobs.info(job)
        if info is None:
            return Ended("lost", f"{self._jobs.address} no longer knows its job")
        if not is_over(info):
            return None
        if was_stopped(info):
            return Ended("stopped", "its job was stopped")
        if info.driver_exit_code is None:  # its process could not be started, or its node died
            return Ended("lost", last_line(info.message or "") or "its job failed")
        return how_ended(info.driver_exit_code, last_line(info.message or ""))

    def where(self, job: str) -> str:
        return self._jobs.hint("logs", job)

    def leave(self, running: Sequence[tuple[RunRecord, Command]]) -> bool:
        for run, _ in running:
            say(f"ser: {run.name} goes on as a job; to end it: {self._jobs.hint('stop', run.job or '')}")
        return False
