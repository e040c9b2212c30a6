"""Whether and from where a run goes on: `resume=no | auto | STEP`.

Guarantees: all is checked before anything starts or is written; a run never goes on with a config or data that would
make it another run; whatever a resume drops is named on stderr.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evidence.errors import BadInput
from learner.checkpoints import (
    AUTO,
    NO,
    Record,
    checkpoints,
    record_of,
    remove_unfinished,
    require_whole,
    step_of,
    try_to_remove,
)
from orchestration.config import load_config
from orchestration.loop.run_state import RunState
from orchestration.reporting.summary import SUMMARY
from orchestration.run_directory import CHECKPOINTS, CONFIG
from orchestration.settings import TrainConfig
from orchestration.streams import say

RECORDS = "evaluations"  # the completions of each evaluation, by step
# What a resumed run may change: how many steps, on which machines, how fast, and what is kept.
MAY_CHANGE = (
    *("steps", "run_dir", "resume", "checkpoint", "limits", "cluster", "frames", "referee"),
    *("wandb", "wandb_group", "wandb_tags"),
    *("learner.ranks", "learner.threads", "learner.max_skipped", "learner.export_dtype", "sampling.max_num_seqs"),
    *("sampling.max_num_batched_tokens", "pacing.full_every", "eval.every", "eval.benchmarks"),
)
DECIDES_PIXELS = ("frames.decoder",)


@dataclass(frozen=True)
class Start:
    """Where a run starts. again: whether its folder holds a run already. record: of the checkpoint that it goes on
    from; None starts with the initial weights. state: what that checkpoint holds besides the learner's."""

    run_dir: Path
    again: bool
    record: Path | None = None
    state: RunState | None = None

    @classmethod
    def found(cls, run_dir: Path, resume: str) -> Start:
        """Raises BadInput, as `find_checkpoint`."""
        record = find_checkpoint(run_dir, resume)
        state = RunState.of(Record.read(record).state, str(record)) if record else None
        return cls(run_dir, (run_dir / CONFIG).exists(), record, state)

    def require_same(self, config: TrainConfig, digests: Mapping[str, str]) -> None:
        """Say what differs from the run that goes on. Raises BadInput if that would make it another run. `digests`: of
        the dataset files."""
        if self.state is None:
            return
        if config.steps < self.state.step:
            raise BadInput(f"steps = {config.steps}: the checkpoint {self.record} is of step {self.state.step}")
        for change in require_same_config(self.run_dir, config, MAY_CHANGE, DECIDES_PIXELS):
            say(f"resumed with {change}")
        require_same_data(self.state.data, digests)

    def finished(self, config: TrainConfig) -> bool:
        """Whether nothing is left to do. Raises BadInput for a run that has finished with fewer or more steps and left
        no checkpoint: to start it again from the beginning would destroy its results."""
        if not self.again or not (self.run_dir / SUMMARY).exists():
            return False
        if self.state is not None:
            return self.state.step == config.steps
        steps = load_config(TrainConfig, self.run_dir / CONFIG).steps
        if steps != config.steps:
            raise BadInput(
                f"steps = {config.steps}: the run in {self.run_dir} has finished its {steps} steps and left no "
                "checkpoint to go on from; name another run_dir"
            )
        return True


def find_checkpoint(run_dir: Path, resume: str) -> Path | None:
    """The record of the checkpoint to go on from, None to start afresh.

    auto: the newest whole checkpoint; damaged ones are named on stderr. A step: the checkpoint of that step. Raises
    BadInput if it does not exist or is damaged, if `auto` finds damaged ones only, and, for `no`, if the folder holds a
    run.
    """
    started = (run_dir / CONFIG).exists()
    if resume == NO:
        if started:
            raise BadInput(
                f"run_dir = {run_dir}: already holds a run; go on with it by resume=auto, name another folder, or "
                "remove it"
            )
        return None
    if resume == AUTO:
        return newest_whole(run_dir / CHECKPOINTS)
    records, record = checkpoints(run_dir / CHECKPOINTS), record_of(run_dir / CHECKPOINTS, int(resume))
    if record not in records:
        known = ", ".join(str(step_of(path)) for path in records) or "none"
        raise BadInput(f"resume = {resume}: {run_dir} has no checkpoint of this step; its checkpoints: {known}")
    require_whole(record, Record.read(record))
    return record


def require_unchanged(run_dir: Path, resume: str, record: Path | None) -> None:
    """Call it once the folder is held. Raises BadInput if `find_checkpoint`, which returned `record`, no longer does:
    another process has gone on with the run since."""
    if resume != NO and find_checkpoint(run_dir, resume) != record:
        raise BadInput(f"run_dir = {run_dir}: another process has saved or removed checkpoints meanwhile; start again")


def newest_whole(folder: Path) -> Path | None:
    """The record of the newest whole checkpoint in `folder`, None if it has no checkpoint. Damaged ones are named on
    stderr. Raises BadInput if all are damaged, or were written by another version of SER: a run that then started from
    the beginning would remove them."""
    records = checkpoints(folder)
    for record in reversed(records):
        try:
            require_whole(record, Record.read(record))
            return record
        except BadInput as error:
            say(f"{error}; the checkpoint before it is taken")
    if records:
        raise BadInput(
            f"{folder}: none of its {len(records)} checkpoints can be read; restore one, or, to start from the "
            "beginning, move them away"
        )
    return None


def drop_later(run_dir: Path, step: int) -> None:
    """Remove the checkpoints, and the records of evaluations, after `step`, whose lineage is abandoned by going back to
    it, and unfinished checkpoints."""
    later = [record for record in checkpoints(run_dir / CHECKPOINTS) if step_of(record) > step]
    if later:
        steps = ", ".join(str(step_of(record)) for record in later)
        say(f"{run_dir}: going back to step {step}; the checkpoints of steps {steps} are removed")
    for record in later:
        try_to_remove(record)
    remove_unfinished(run_dir / CHECKPOINTS)
    for folder in (run_dir / RECORDS).glob("step-*"):
        if int(folder.name.removeprefix("step-")) > step:
            shutil.rmtree(folder)


def require_same_config(run_dir: Path, config: Any, may_change: Sequence[str], never: Sequence[str] = ()) -> list[str]:
    """The keys of `config` that differ from the run's config.yaml. Raises BadInput for one that is not in a section or
    key of `may_change`, or is in `never`, naming both values and what may change."""
    saved = load_config(type(config), run_dir / CONFIG)
    differing = list(differences(saved, config))
    for key, old, new in differing:
        if not _within(key, may_change) or _within(key, never):
            raise BadInput(
                f"{key} = {new}: the run in {run_dir} was started with {old}; set it back, or name another run_dir. A "
                f"resumed run may change {', '.join(may_change)}"
            )
    return [f"{key} = {new} (was {old})" for key, old, new in differing if key not in ("resume", "run_dir")]


def differences(before: Any, after: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(key, value before, value after) of each value that differs between two configs of one schema."""
    if dataclasses.is_dataclass(before) and type(before) is type(after):
        for field in dataclasses.fields(before):
            name = f"{key}.{field.name}" if key else field.name
            yield from differences(getattr(before, field.name), getattr(after, field.name), name)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (old, new) in enumerate(zip(before, after)):
            yield from differences(old, new, f"{key}[{number}]")
    elif before != after:
        yield key, before, after


def _within(key: str, sections: Iterable[str]) -> bool:
    return any(f"{key}.".startswith(f"{section}.") for section in sections)


def require_same_data(saved: Mapping[str, str], here: Mapping[str, str]) -> None:
    """Raises BadInput for a dataset file whose content is not that of the checkpoint."""
    for path, digest in here.items():
        if saved.get(path, digest) != digest:
            raise BadInput(
                f"{path}: has changed since the run began, so its order of samples would be another; restore the file, "
                "or start a new run"
            )
