"""The run directory: a valid place, held by one run at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evidence.errors import BadInput, RunFailed
from evidence.files import whole_file
from orchestration.config import to_yaml
from orchestration.folders import require_folder

CONFIG, LOCK, CHECKPOINTS = "config.yaml", "lock", "checkpoints"
LOOK_S = 1.0  # `ser runs` and the like hold a folder for an instant


def run_directory(name: str, key: str = "run_dir") -> Path:
    """`name`, the value of `key`, as an absolute path. Raises BadInput for a path at which no folder can be created,
    and for a relative path inside a Ray job, whose working directory is a copy that is deleted when the job ends."""
    if not name:
        raise BadInput(f"{key} has no value; name a folder")
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and not Path(name).is_absolute():
        raise BadInput(f"{key} = {name}: a Ray job runs in a copy of the project; give an absolute path")
    return require_folder(key, name)


@contextlib.contextmanager
def claimed(run_dir: Path, config: Any, again: bool) -> Iterator[None]:
    """Hold the folder while the block runs, and write config.yaml into it, whole or not at all. `again`: whether the
    folder may hold a run already, which goes on.

    The kernel releases the folder when this process ends, however it ends. Raises RunFailed if another process holds
    it, and BadInput, unless `again`, if it holds a run: of two runs that start at once, only one gets it.
    """
    with held("run_dir", run_dir):
        try:
            with whole_file(run_dir / CONFIG, new=not again) as part:
                part.write_text(to_yaml(config), encoding="utf-8")
        except FileExistsError:
            raise BadInput(f"run_dir = {run_dir}: already holds a run; name another folder or remove it") from None
        yield


@contextlib.contextmanager
def held(key: str, folder: Path) -> Iterator[None]:
    """Hold a folder, which is created if it is missing, while the block runs. The kernel releases it when this process
    ends, however it ends. Raises RunFailed if another process holds it for longer than a look at it takes
    (run_report.recorded.is_held). `key`: the setting that names it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w", encoding="utf-8") as lock:
        end = time.monotonic() + LOOK_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    text = f"{key} = {folder}: another process is running in it; wait for its end"
                    raise RunFailed(text) from None
                time.sleep(LOOK_S / 20)
        yield
