"""starts.jsonl: one line for each start of a run, with its date, the step that it went on from, and the code's commit.

Guarantee: the commit is that of the code which runs. An installation that is no git checkout, also one inside another
project's checkout, has none.
"""

from __future__ import annotations

import socket
import subprocess
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evidence.lines import AppendedLines, records
from evidence.plain import dumps

STARTS = "starts.jsonl"
GIT_S = 20.0  # for git to look at all files of a checkout on a slow disk


@dataclass(frozen=True)
class Code:
    """commit: None if it is unknown. dirty: whether files that git tracks were changed after it."""

    commit: str | None = None
    dirty: bool = False


def code_of(file: Path) -> Code:
    """The code to which `file` belongs."""

    def git(*arguments: str) -> str:
        argv = ["git", "-C", str(file.parent), *arguments]
        return subprocess.run(argv, capture_output=True, text=True, timeout=GIT_S, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", file.name)
        commit, _, dirty = git("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty").partition("-")
    except (OSError, subprocess.SubprocessError):
        return Code()
    return Code(commit, bool(dirty))


def record_start(run_dir: Path, step: int) -> None:
    """Append the line of this start, which goes on after `step`."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    line = {"step": step, "began": now, "host": socket.gethostname(), **asdict(code_of(Path(__file__)))}
    with closing(AppendedLines(run_dir / STARTS)) as lines:
        lines.write([dumps(line)])


def recorded_starts(run_dir: Path) -> list[dict[str, Any]]:
    """The starts of a run, the first one first; empty for a run that recorded none."""
    path = run_dir / STARTS
    return list(records(path)) if path.exists() else []
