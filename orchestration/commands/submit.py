"""`ser submit`: a training as a job of a Ray cluster.

Guarantee: the config and its keys are checked before anything is submitted.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Sequence
from pathlib import Path

from evidence.errors import INTERRUPTED, BadInput, Interrupted, RunFailed
from orchestration.config import load_config
from orchestration.folders import require_folder
from orchestration.ray_jobs import Jobs, entrypoint, is_over, was_stopped
from orchestration.settings import TrainConfig
from orchestration.sweeps.launching import Unreachable, train_command

MOST_NAME = 60  # characters of the run's name in the id of its job
LOOKS_AT_END = 50  # the job's state is written shortly after its output ends
LOOK_S = 0.2


def main(config: Path, overrides: Sequence[str], address: str | None, follow: bool) -> None:
    """Submit the job and print its id and the commands for it; with `follow`, also its output until it ends.

    Raises BadInput, RunFailed if the job fails, and Interrupted if it can be resumed.
    """
    run_dir = require_folder("run_dir", load_config(TrainConfig, config, overrides).run_dir)
    jobs = Jobs(address)
    job = f"{re.sub('[^A-Za-z0-9._-]+', '-', run_dir.name)[:MOST_NAME]}-{uuid.uuid4().hex[:8]}"
    jobs.submit(job, entrypoint(train_command(config, [*overrides, f"run_dir={run_dir}"])))
    print(f"{job}\n  follow: {jobs.hint('logs', job)} --follow\n  state:  {jobs.hint('status', job)}")
    print(f"  stop:   {jobs.hint('stop', job)}\n  run:    {run_dir}", flush=True)
    if follow:
        try:
            asyncio.run(_follow(jobs, job))
        except KeyboardInterrupt:
            raise Interrupted(f"job {job} goes on; to end it: {jobs.hint('stop', job)}") from None


async def _follow(jobs: Jobs, job: str) -> None:
    """Print the job's output until it ends. Raises as its exit code says."""
    try:
        async for text in jobs.output(job):
            print(text, end="", flush=True)
        for _ in range(LOOKS_AT_END):
            info = jobs.info(job)
            if info is None or is_over(info):
                break
            await asyncio.sleep(LOOK_S)
    except Unreachable as error:
        raise RunFailed(f"job {job}: its output is lost ({error}); it may go on: {jobs.hint('status', job)}") from None
    if info is None or not is_over(info):
        raise RunFailed(f"job {job}: its output has ended; see {jobs.hint('status', job)}")
    code = info.driver_exit_code
    if was_stopped(info) or code == INTERRUPTED:
        raise Interrupted(f"job {job} was interrupted; the same command with resume=auto goes on")
    if code == 2:
        raise BadInput(f"job {job}: bad input, as its output says")
    if code != 0:
        raise RunFailed(f"job {job} failed{'' if code is None else f' with exit code {code}'}")
