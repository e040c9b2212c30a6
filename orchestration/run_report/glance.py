"""What the folder of a run shows at a glance, without reading all of it: its state, its steps and its last reward.

Guarantees: a run that is under way is read and not disturbed; a file that is missing or torn leaves a value unknown.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from evidence.lines import records_from_last
from learner.checkpoints import checkpoints, step_of
from orchestration.run_directory import CHECKPOINTS, CONFIG, LOCK
from orchestration.run_report.recorded import METRICS, SUMMARY, is_held
from orchestration.run_report.stages import number

STEP = b'{"step"'  # how each line of metrics.jsonl begins


@dataclass(frozen=True)
class Glance:
    """state: running, done, interrupted or failed. how: how that is known. planned: the steps of its config. reward: of
    its last step. age_s: since its folder was last written to. None where unknown."""

    folder: Path
    state: str
    how: str
    step: int
    planned: int | None
    reward: float | None
    age_s: float | None


def run_folders(top: Path) -> Iterator[Path]:
    """The folders of runs in `top` and below it, in the order of their names. Runs are not searched for runs, and
    folders that cannot be read are left out."""
    with contextlib.suppress(OSError):
        if (top / CONFIG).is_file() and ((top / LOCK).exists() or (top / METRICS).exists()):
            yield top
            return
        for folder in sorted(path for path in top.iterdir() if path.is_dir() and not path.is_symlink()):
            yield from run_folders(folder)


def glance(folder: Path, now: float | None = None) -> Glance:
    last = _last_line(folder / METRICS)
    step = last.get("step", 0)
    state, how = _state(folder, step)
    written = [_written(folder / name) for name in (METRICS, SUMMARY, CONFIG)]
    newest = max((seconds for seconds in written if seconds is not None), default=None)
    return Glance(
        folder=folder,
        state=state,
        how=how,
        step=step,
        planned=_planned(folder / CONFIG),
        reward=number(last.get("reward")),
        age_s=None if newest is None else (time.time() if now is None else now) - newest,
    )


def last_step(folder: Path) -> int:
    """The last step of the run in a folder, 0 before the first."""
    return _last_line(folder / METRICS).get("step", 0)


def _state(folder: Path, step: int) -> tuple[str, str]:
    """The state of a run, and how it is known: its folder does not record an exit code."""
    if is_held(folder / LOCK):
        return "running", "a process holds its folder"
    if (folder / SUMMARY).exists():
        return "done", f"it wrote {SUMMARY}"
    saved = max(map(step_of, checkpoints(folder / CHECKPOINTS)), default=0)
    if step and saved == step:
        return "interrupted", "no process holds its folder, and its last step is saved"
    if step:
        last = f"its newest checkpoint is of step {saved}" if saved else "it has no checkpoint"
        return "failed", f"no process holds its folder, and {last}"
    return "failed", "no process holds its folder, and it took no step"


def _last_line(path: Path) -> dict[str, Any]:
    last: deque[dict[str, Any]] = deque(maxlen=1)
    with contextlib.suppress(OSError):
        last.extend(records_from_last(path, STEP))
    return last[0] if last and isinstance(last[0].get("step"), int) else {}


def _planned(path: Path) -> int | None:
    with contextlib.suppress(OSError, UnicodeDecodeError, yaml.YAMLError):
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        steps = config.get("steps") if isinstance(config, dict) else None
        return steps if isinstance(steps, int) else None
    return None


def _written(path: Path) -> float | None:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return None
