"""What `ser train` wrote into a run directory, read for its report.

Guarantees: a run that is under way is read and not disturbed; what is missing, torn or unknown becomes a note, and
everything else is read; of samples.jsonl, one group is in memory at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from evaluation.heldout import ClipRecord
from evidence.errors import BadInput
from evidence.lines import records
from orchestration.config import load_config
from orchestration.reporting.heldout_records import DRAWS, read_records, records_name
from orchestration.reporting.starts import STARTS, recorded_starts
from orchestration.run_directory import CONFIG, LOCK
from orchestration.settings import TrainConfig

METRICS, SAMPLES, EVALUATIONS, SUMMARY = "metrics.jsonl", "samples.jsonl", "eval.jsonl", "summary.json"
LINE_KEYS = {"step": int, "group": int, "sample": str, "text": str, "terms": dict, "claims": list, "frame_times": list}
HELDOUT_RECORDS = "evaluations"  # the folder of the completions of each evaluation during training


@dataclass(frozen=True)
class Group:
    """The recorded completions of one prompt: lines of samples.jsonl."""

    step: int
    number: int
    sample: str
    lines: tuple[dict[str, Any], ...]

    @property
    def rewards(self) -> list[float]:
        return [line["reward"] for line in self.lines if isinstance(line.get("reward"), int | float)]

    @property
    def spread(self) -> float:
        """Largest minus smallest reward."""
        return max(self.rewards, default=0.0) - min(self.rewards, default=0.0)


@dataclass(frozen=True)
class Run:
    """A run as its directory shows it.

    config: None if this version does not understand config.yaml, whose content is in `settings` all the same.
    steps: the lines of metrics.jsonl. evaluations: those of eval.jsonl. heldout: the records of held-out clips by
    (step, "greedy" or "sampled"), where step 0 is before training. summary: empty until the run has finished. held:
    whether a process is running in the directory. starts: the lines of starts.jsonl. last: when metrics.jsonl was last
    written, in seconds since the epoch.
    """

    folder: Path
    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    config: TrainConfig | None = None
    steps: tuple[dict[str, Any], ...] = ()
    evaluations: tuple[dict[str, Any], ...] = ()
    heldout: dict[tuple[int, str], list[ClipRecord]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    held: bool = False
    starts: tuple[dict[str, Any], ...] = ()
    last: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def last_step(self) -> int:
        return self.steps[-1]["step"] if self.steps else 0

    def groups(self) -> Iterator[Group]:
        """The groups of samples.jsonl that can be read, in the file's order."""
        path = self.folder / SAMPLES
        if path.is_file():
            lines = (line for line in records(path) if _is_sample(line))
            for (step, number), group in groupby(lines, key=lambda line: (line["step"], line["group"])):
                recorded = tuple(group)
                yield Group(step, number, recorded[0]["sample"], recorded)


def read_runs(folders: list[Path]) -> list[Run]:
    """The runs, each with its own name. Raises BadInput for a folder that holds no run, or is given twice."""
    for folder in folders:
        require_run(folder)
    resolved = [folder.resolve() for folder in folders]
    for folder, count in Counter(resolved).items():
        if count > 1:
            raise BadInput(f"{folder}: is given {count} times; name each run once")
    return [read_run(folder, name) for folder, name in zip(folders, names(resolved))]


def require_run(folder: Path) -> None:
    if not folder.is_dir():
        raise BadInput(f"{folder}: {'is a file' if folder.exists() else 'no such folder'}; give the folder of a run")
    if not (folder / CONFIG).is_file() and not (folder / METRICS).is_file():
        raise BadInput(f"{folder}: holds neither {CONFIG} nor {METRICS}; give the folder of a `ser train` run")


def names(folders: list[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    for length in range(1, max(len(folder.parts) for folder in folders) + 1):
        ends = ["/".join(folder.parts[-length:]) for folder in folders]
        if len(set(ends)) == len(ends):
            break
    while len(folders) > 1 and len({end.rpartition("/")[2] for end in ends}) == 1 and all("/" in end for end in ends):
        ends = [end.rpartition("/")[0] for end in ends]  # all end alike, as in a/train and b/train
    return ends


def read_run(folder: Path, name: str) -> Run:
    notes: list[str] = []
    steps = tuple(line for line in _lines(folder / METRICS, notes) if isinstance(line.get("step"), int))
    settings, config = _config(folder / CONFIG, notes)
    if not steps:
        notes.append(f"{METRICS} holds no step yet")
    unreadable = _unreadable_samples(folder / SAMPLES, notes)
    if unreadable:
        notes.append(f"{SAMPLES}: {counted(unreadable, 'line')} without what this version writes, left out")
    evaluations = _lines(folder / EVALUATIONS, notes) if (folder / EVALUATIONS).exists() else ()
    summary = _summary(folder / SUMMARY, notes)
    last_step = steps[-1]["step"] if steps and summary else None
    return Run(
        folder=folder,
        name=name,
        settings=settings,
        config=config,
        steps=steps,
        evaluations=tuple(line for line in evaluations if isinstance(line.get("step"), int) and "set" in line),
        heldout=_heldout(folder, last_step, notes),
        summary=summary,
        held=is_held(folder / LOCK),
        starts=_starts(folder, notes),
        last=_written(folder / METRICS),
        notes=tuple(notes),
    )


def is_held(lock: Path) -> bool:
    """Whether a process runs in the directory of this lock file. A shared lock is tried, for an instant."""
    with contextlib.suppress(OSError), lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _is_sample(line: dict[str, Any]) -> bool:
    return all(isinstance(line.get(key), kind) for key, kind in LINE_KEYS.items())


def _lines(path: Path, notes: list[str]) -> tuple[dict[str, Any], ...]:
    """The lines of a file. Notes that it is missing, or that lines were written in part."""
    try:
        read = tuple(records(path))
        with path.open("rb") as file:
            torn = sum(1 for _ in file) - len(read)
    except OSError as error:
        notes.append(f"{path.name}: {error.strerror or error}")
        return ()
    if torn:
        notes.append(f"{path.name}: {counted(torn, 'line')} written in part, left out")
    return read


def _unreadable_samples(path: Path, notes: list[str]) -> int:
    """How many whole lines are not those of samples. Notes what `_lines` notes, without keeping the lines."""
    whole = unreadable = total = 0
    try:
        for line in records(path):
            whole += 1
            unreadable += not _is_sample(line)
        with path.open("rb") as file:
            total = sum(1 for _ in file)
    except OSError as error:
        notes.append(f"{path.name}: {error.strerror or error}, so no completions are shown")
    if total > whole:
        notes.append(f"{path.name}: {counted(total - whole, 'line')} written in part, left out")
    return unreadable


def counted(number: int, what: str) -> str:
    """Such as "1 line" and "2 lines"."""
    return f"{number} {what}{'s' * (number != 1)}"


def _config(path: Path, notes: list[str]) -> tuple[dict[str, Any], TrainConfig | None]:
    """The content of config.yaml as plain data, and as the config of a training run."""
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no YAML file"
        notes.append(f"{path.name}: {reason}, so no settings and no frames are shown")
        return {}, None
    try:
        return settings if isinstance(settings, dict) else {}, load_config(TrainConfig, path)
    except BadInput as error:
        reason = str(error).removeprefix(f"{path}: ")
        notes.append(f"{path.name}: {reason}. This version cannot read it, so no frames and no tasks are shown")
        return settings if isinstance(settings, dict) else {}, None


def _summary(path: Path, notes: list[str]) -> dict[str, Any]:
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        notes.append(f"{path.name}: cannot be read")
        return {}
    return summary if isinstance(summary, dict) else {}


def _starts(folder: Path, notes: list[str]) -> tuple[dict[str, Any], ...]:
    try:
        return tuple(line for line in recorded_starts(folder) if isinstance(line.get("began"), str))
    except OSError as error:
        notes.append(f"{STARTS}: {error.strerror or error}")
        return ()


def _heldout(folder: Path, last_step: int | None, notes: list[str]) -> dict[tuple[int, str], list[ClipRecord]]:
    """last_step: None for a run that has not finished: its clips `after` are those of an earlier end."""
    steps = {"before": 0, "after": last_step}
    paths = {
        (step, draw): folder / records_name(when, draw)
        for when, step in steps.items()
        if step is not None
        for draw in DRAWS
    }
    for path in sorted((folder / HELDOUT_RECORDS).glob("step-*/heldout.jsonl")):
        with contextlib.suppress(ValueError):
            paths.setdefault((int(path.parent.name.removeprefix("step-")), DRAWS[0]), path)
    heldout = {}
    for key, path in paths.items():
        try:
            if path.is_file():
                heldout[key] = read_records(path)
        except (OSError, ValueError, KeyError, TypeError):
            notes.append(f"{path.relative_to(folder)}: cannot be read")
    return heldout


def _written(path: Path) -> float | None:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return None
