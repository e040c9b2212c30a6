"""The run directory: a valid place, held by one run at a time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from evidence.errors import BadInput
from evidence.files import whole_file
from orchestration.config import to_yaml
from orchestration.preflight import require_folder

CONFIG = "config.yaml"


def run_directory(name: str) -> Path:
    """`name` as an absolute path. Raises BadInput for a path at which no folder can be created, and for a relative path
    inside a Ray job, whose working directory is a copy that is deleted when the job ends."""
    if not name:
        raise BadInput("run_dir has no value; name a folder")
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and not Path(name).is_absolute():
        raise BadInput(f"run_dir = {name}: a Ray job runs in a copy of the project; give an absolute path")
    return require_folder("run_dir", name)


def require_unused(run_dir: Path) -> None:
    """Raises BadInput if a run has been started in `run_dir`."""
    if (run_dir / CONFIG).exists():
        raise _taken(run_dir)


def claim(run_dir: Path, config: Any) -> None:
    """Write config.yaml, whole or not at all. Raises BadInput if it exists: of two runs that start at once, only one
    gets the folder."""
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        with whole_file(run_dir / CONFIG, new=True) as part:
            part.write_text(to_yaml(config), encoding="utf-8")
    except FileExistsError:
        raise _taken(run_dir) from None


def _taken(run_dir: Path) -> BadInput:
    return BadInput(f"run_dir = {run_dir}: already holds a run; name another folder or remove it")
