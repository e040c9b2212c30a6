"""What became of each run of a sweep: sweep.json in the sweep's folder, as plain data. The transitions are pure.

Guarantees: the file is written as a whole; it names a run's job before the job is started, so a sweep that was killed
finds every job that it has started; a run that has begun is never given other settings.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from evidence.errors import BadInput
from evidence.files import write_text
from evidence.plain import dumps
from evidence.visible import one_line
from orchestration.sweeps.expansion import SweepRun

SWEEP, RUNS, LOGS = "sweep.json", "runs", "logs"
FORMAT = 2
REASON = 300  # characters of a reason
MOST_ID = 40  # characters of the sweep's own name in the id of a job, which is a part of the names of files
# done, failed: for good. stopped: by a user, so that only another `ser sweep` goes on with it.
Status = Literal["waiting", "running", "done", "failed", "stopped"]
# interrupted: exit code 75. bad_input: exit code 2. lost: it ended, or its cluster did, and nothing says how.
Ending = Literal["done", "failed", "bad_input", "interrupted", "stopped", "lost"]


@dataclass(frozen=True)
class Ended:
    """How a job ended. reason: as the job or its cluster says it, "" if there is nothing to say."""

    how: Ending
    reason: str = ""


@dataclass
class RunRecord:
    """One run. config: the digest of its resolved config. starts: how many jobs it has had; failures: how many of them
    failed. job: the one that may be under way, None if none is. place: of the newest job, the URL of its cluster's
    dashboard or the name of its machine. step: the run's last step when that job was started. reason: why the run
    failed or was interrupted last, in one line that is safe to print."""

    name: str
    arm: str
    seed: int | None
    overrides: list[str]
    config: str
    status: Status = "waiting"
    starts: int = 0
    failures: int = 0
    job: str | None = None
    place: str = ""
    step: int = 0
    reason: str = ""

    @property
    def on_cluster(self) -> bool:
        return "://" in self.place

    def ended(self, how: Ended, step: int, retries: int, asked: bool = False) -> None:
        """The newest job has ended. `step`: the run's last step now. `asked`: whether the sweep asked it to end.

        A run that was interrupted or lost goes on without counting as failed, unless it has taken no step without being
        asked to end: it could go on so for ever. Bad input is not tried again.
        """
        self.job, self.reason = None, one_line(how.reason, REASON)
        if how.how == "done":
            self.status = "done"
        elif how.how == "stopped":
            self.status = "stopped"
        elif how.how in ("interrupted", "lost") and (asked or step > self.step):
            self.status = "waiting"
        else:
            self.failures += 1
            again = self.failures <= retries and how.how != "bad_input"
            self.status = "waiting" if again else "failed"


@dataclass
class SweepState:
    """All runs of a sweep in their order. id: in the ids of its jobs, other than that of any other sweep."""

    id: str
    config: str
    runs: list[RunRecord] = field(default_factory=list)

    @classmethod
    def begun(cls, folder: Path, config: Path, runs: Sequence[SweepRun], digests: Mapping[str, str]) -> SweepState:
        """The state in the sweep's folder, with the runs that it does not know yet, or a new one. digests: of the
        resolved configs of the runs.

        Raises BadInput if a run that has begun is no longer in the sweep, or has other settings there.
        """
        state = read_state(folder) or cls(_new_id(folder.name), str(config))
        known = {record.name: record for record in state.runs}
        wanted = {run.name: run for run in runs}
        where = f"{folder / SWEEP}: belongs to another sweep"
        remedy = "name another sweep_dir, or restore the sweep's settings"
        if state.config != str(config):
            raise BadInput(f"{where}: its config is {state.config}, not {config}; {remedy}")
        for record in state.runs:
            if not record.starts:
                continue
            if record.name not in wanted:
                raise BadInput(f"{where}: its run {record.name} is not among the runs of this one; {remedy}")
            if sorted(record.overrides) != sorted(wanted[record.name].overrides):
                raise BadInput(f"{where}: its run {record.name} has {' '.join(record.overrides)}; {remedy}")
            if record.config != digests[record.name]:
                raise BadInput(
                    f"{where}: its run {record.name} began with other contents of {config}, or of what that includes; "
                    f"{remedy}"
                )
        state.runs = [
            known[run.name]
            if run.name in known and known[run.name].starts
            else RunRecord(run.name, run.arm, run.seed, list(run.overrides), digests[run.name])
            for run in runs
        ]
        return state

    def require_place(self, folder: Path, place: str) -> None:
        """Raises BadInput if a job is under way, or may be, at another place than this one, where nobody would know."""
        for record in self.runs:
            if record.job is not None and record.place != place:
                there = "with --address" if record.on_cluster else "without --address on"
                raise BadInput(
                    f"{folder / SWEEP}: run {record.name} may still be running as {record.job}; go on {there} "
                    f'{record.place}, or, once that job is gone for good, set "job" of the run to null in this file'
                )

    def of_status(self, *status: Status) -> Iterator[RunRecord]:
        return (run for run in self.runs if run.status in status)

    def write(self, folder: Path) -> None:
        write_text(folder / SWEEP, dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")


def read_state(folder: Path) -> SweepState | None:
    """The state in a sweep's folder, None if it has none. Raises BadInput for a file that cannot be read."""
    path = folder / SWEEP
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); restore it, or name another sweep_dir") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise BadInput(f"{path}: was written by another version of SER; name another sweep_dir")
    runs = [RunRecord(**_known(entry)) for entry in content["runs"]]
    return SweepState(content["id"], content["config"], runs)


def _known(entry: dict[str, Any]) -> dict[str, Any]:
    return {part.name: entry[part.name] for part in fields(RunRecord)}


def _new_id(name: str) -> str:
    return f"{re.sub('[^A-Za-z0-9]+', '-', name)[:MOST_ID]}-{uuid.uuid4().hex[:8]}"
