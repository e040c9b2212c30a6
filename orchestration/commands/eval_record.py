"""The folder of one run of a benchmark: its settings, a line for each completion, and the judge's replies.

Guarantees: a completion is in the file before the next one is asked about it again, so that a run which was killed goes
on with what is missing; a line that was written in part does not count; a folder is held by one process at a time, and
its lines all come from the same settings. Whatever could not be asked has a line with the reason, and is tried again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evaluation.faults import Faults
from evidence.errors import BadInput, RunFailed
from evidence.files import write_text
from evidence.lines import AppendedLines, records
from evidence.plain import dumps, plain

SETTINGS, COMPLETIONS, REPLIES, REPORT, RESULTS, LOCK = (
    "settings.json",
    "completions.jsonl",
    "judge.jsonl",
    "report.json",
    "results.json",
    "lock",
)
# Why a question has no completion -> how the report says it.
OUTCOMES = {
    "missing": "its video is missing: unanswered",
    "unreadable": "its video or subtitles cannot be read: unanswered",
    "too_long": "its prompt does not fit engine.max_model_len: unanswered",
    "failed": "its generation failed: unanswered",
}
COMPLETED = "completed"


class Record:
    """An open record, made by `opened`. lines: the completions by id; failures: the last line of each question that has
    none."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.lines: dict[str, dict[str, Any]] = {}
        self.failures: dict[str, dict[str, Any]] = {}
        self.replies: dict[str, str] = {}
        path = folder / COMPLETIONS
        for line in records(path) if path.exists() else ():
            self._take(line)
        self._file: AppendedLines | None = None

    def add(self, line: dict[str, Any]) -> None:
        """Write the line of a completion, or of a question without one. Raises OSError."""
        if self._file is None:
            self._file = AppendedLines(self.folder / COMPLETIONS)
        written = dumps(line, ensure_ascii=False)
        self._file.write([written])
        self._take(json.loads(written))  # as it will be read: what is scored now is what is scored later

    def outcomes(self, ids: set[str]) -> dict[str, int]:
        """How many of these questions were completed, and how many were not, by reason."""
        counts = Counter(line["outcome"] for name, line in self.failures.items() if name in ids)
        return {COMPLETED: len(ids & self.lines.keys())} | {name: counts[name] for name in OUTCOMES}

    def add_faults(self, ids: set[str], faults: Faults) -> None:
        """Add the questions without a completion, with the path and the reason of the first of each kind."""
        for name, line in self.failures.items():
            if name in ids:
                faults.add(OUTCOMES[line["outcome"]], f"{name}, {line['path']}: {line['reason']}")

    def close(self) -> None:
        """Raises RunFailed if lines could not be written."""
        if self._file is None:
            return
        lost = self._file.waiting
        self._file.close()
        if lost and self._file.waiting:
            raise RunFailed(f"{self._file.path}: no room for {lost} completions; make room and start again")

    def _take(self, line: dict[str, Any]) -> None:
        name = line["id"]
        if "text" in line:
            self.lines[name] = line
            self.failures.pop(name, None)
        elif name not in self.lines:
            self.failures[name] = line


@contextlib.contextmanager
def held(folder: Path) -> Iterator[Path]:
    """The folder, which no other process holds during the block. Raises BadInput if one does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(f"--out {folder}: another process is running in it; wait for its end") from None
        yield folder


@contextlib.contextmanager
def opened(folder: Path, settings: Mapping[str, Any]) -> Iterator[Record]:
    """The record in a folder, which is held during the block. A new one is given `settings`. Raises BadInput if another
    process holds it, or if its settings differ."""
    with held(folder):
        if (folder / SETTINGS).exists():
            _require_same(folder, read_settings(folder), plain(dict(settings)))
        write_text(folder / SETTINGS, dumps(settings, indent=1) + "\n")
        record = Record(folder)
        try:
            yield record
        finally:
            record.close()


def read_settings(folder: Path) -> dict[str, Any]:
    """Raises BadInput for a folder that holds no record."""
    path = folder / SETTINGS
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); name the --out folder of `ser eval BENCH --model`") from None
    if not isinstance(settings, dict) or "drawn" not in settings:
        raise BadInput(f"{path}: holds no settings of `ser eval BENCH --model`; name its --out folder")
    return settings


def _require_same(folder: Path, recorded: dict[str, Any], given: dict[str, Any]) -> None:
    """Require that the completions of both settings would be drawn alike."""
    before, now = dict(_leaves(recorded["drawn"])), dict(_leaves(given["drawn"]))
    for key in now | before:
        if before.get(key) != now.get(key):
            raise BadInput(
                f"--out {folder}: its completions were drawn with {key} = {before.get(key)!r:.80}, not "
                f"{now.get(key)!r:.80}; name another folder, or give the recorded settings"
            )


def _leaves(tree: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, dict):
        yield above, tree
        return
    for key, value in tree.items():
        yield from _leaves(value, f"{above}.{key}" if above else key)
