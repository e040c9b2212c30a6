"""The ledger on disk: `ledger.jsonl` of a run, to which every move of a group is appended, and what it says.

Lines, in the order in which things happened:

    {"group": 7, "sample": "clip-3", "state": "pending"}          the group was added
    {"group": 7, "state": "generating"}                           and so on, with a reason or with lineage and step
    {"checkpoint": 20, "reached": {...}}                          what was true here is in the checkpoint of step 20
    {"lineage": 1, "step": 20, "version": 27}                     a restart: everything after that line is void

`fates` replays them. A run that starts reads only those from the last checkpoint on, which says how far the run had
come. Pure, except for `Journal`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from evidence.errors import BadInput
from evidence.lines import AppendedLines, records_from_last
from orchestration.loop.ledger import State

JOURNAL = "ledger.jsonl"
CHECKPOINT = b'{"checkpoint": '  # how the line of a checkpoint begins


class Journal:
    """Appends to the journal of a run. A line is handed to the operating system when `move` returns, so it survives the
    death of this process, and is on disk, so it survives the machine's, once `checkpoint` returns True.

    reached: how far the run has come, by what was recorded, also while a full disk keeps it from the file.
    """

    def __init__(self, run_dir: Path) -> None:
        """Raises BadInput for the journal of another version of SER."""
        self.lines = AppendedLines(run_dir / JOURNAL)
        try:
            self.reached = reached(records_from_last(self.lines.path, CHECKPOINT))
        except (KeyError, TypeError):
            raise BadInput(
                f"{self.lines.path}: was written by another version of SER; go on with that one, or start a new run"
            ) from None

    def move(self, facts: Mapping[str, Any]) -> None:
        """Record a move of a group; see Ledger."""
        self.lines.write([json.dumps(facts)])
        self.reached = self.reached.after(facts)

    def checkpoint(self, step: int) -> bool:
        """Record that the state of now is what the checkpoint of `step` will hold. Returns whether that is on disk:
        without it, nothing could tell later what the checkpoint holds."""
        self.move(checkpoint_line(step, self.reached))
        return self.lines.sync()

    def lineage(self, lineage: int, step: int, version: int) -> None:
        """Record that `lineage` begins from the checkpoint of `step`, whose weights are published as `version`."""
        self.move({"lineage": lineage, "step": step, "version": version})
        self.lines.sync()

    def close(self) -> None:
        self.lines.close()


@dataclass(frozen=True)
class Reached:
    """How far the run had come that wrote a journal. version: the highest that its learner can have reached. frontier:
    the first group that was never begun. lineages: their number. first, fork: version and step from which the last
    lineage began."""

    version: int = 0
    frontier: int = 0
    lineages: int = 1
    first: int = 0
    fork: int = 0

    def after(self, line: Mapping[str, Any]) -> Reached:
        """How far it had come after one more line."""
        if "group" in line:
            trained = line["state"] == State.TRAINED
            version = self.first + line["step"] - self.fork if trained else 0
            frontier = max(self.frontier, line["group"] + 1)
            return replace(self, version=max(self.version, version), frontier=frontier)
        if "lineage" in line:
            first = line["version"]
            return Reached(max(self.version, first), self.frontier, line["lineage"] + 1, first, line["step"])
        return Reached(**line["reached"])


def checkpoint_line(step: int, far: Reached) -> dict[str, Any]:
    """The line of a checkpoint of `step` in a run that has come so far."""
    return {"checkpoint": step, "reached": asdict(far)}


def reached(lines: Iterable[Mapping[str, Any]]) -> Reached:
    """How far the run had come, its abandoned lineages included, by its lines from any checkpoint on. Holds one line at
    a time."""
    far = Reached()
    for line in lines:
        far = far.after(line)
    return far


@dataclass
class Fate:
    """What became of a group along the surviving lineage. `reason` only if it is rejected, or pending again; `lineage`
    and `step` only if it is trained. since, added: numbers of the lines that said so."""

    sample: str
    state: str
    reason: str | None = None
    lineage: int | None = None
    step: int | None = None
    since: int = 0
    added: int = 0


def fates(lines: Iterable[Mapping[str, Any]]) -> dict[int, Fate]:
    """The fate of each group, by group. Raises BadInput where lines were lost."""
    groups: dict[int, Fate] = {}
    checkpoints = {0: -1}  # step -> number of the line at which its checkpoint was taken
    for number, line in enumerate(lines):
        if "checkpoint" in line:
            checkpoints[line["checkpoint"]] = number
        elif "group" not in line:
            if line["step"] not in checkpoints:
                raise BadInput(f"the ledger goes back to the checkpoint of step {line['step']}, which it does not hold")
            _void(groups, checkpoints[line["step"]])
            checkpoints = {step: at for step, at in checkpoints.items() if step <= line["step"]}
        else:
            group = line["group"]
            if "sample" in line:
                groups[group] = Fate(line["sample"], line["state"], since=number, added=number)
                continue
            if group not in groups:
                raise BadInput(f"the ledger has no line that adds group {group}: lines of it were lost")
            fate = groups[group]
            fate.state, fate.since = line["state"], number
            fate.reason, fate.lineage, fate.step = line.get("reason"), line.get("lineage"), line.get("step")
    return groups


def _void(groups: dict[int, Fate], checkpoint: int) -> None:
    """Take back all that happened after the line of a checkpoint."""
    for group, fate in list(groups.items()):
        if fate.added > checkpoint:
            del groups[group]
        elif fate.since > checkpoint:
            fate.state, fate.reason, fate.lineage, fate.step = State.PENDING.value, None, None, None


def audit(
    groups: Mapping[int, Fate], metrics: Iterable[Mapping[str, Any]], groups_per_step: int, finished: bool
) -> list[str]:
    """What is wrong with a run, by its files alone; empty if each group entered exactly one optimizer step of the
    surviving lineage or was rejected with a reason. `finished`: whether every group must have ended."""
    problems = []
    by_step: dict[int, list[int]] = {}
    for group, fate in groups.items():
        if fate.state == State.TRAINED and fate.step is not None:
            by_step.setdefault(fate.step, []).append(group)
        elif fate.state == State.REJECTED:
            if not fate.reason:
                problems.append(f"group {group} was rejected without a reason")
        elif finished:
            problems.append(f"group {group} is {fate.state}, and the run has ended")
    if missing := set(range(max(groups, default=-1) + 1)) - set(groups):
        problems.append(f"{len(missing)} groups were lost, group {min(missing)} first")
    steps = sorted(by_step)
    if missing := set(range(1, max(steps, default=0) + 1)) - set(steps):
        problems.append(f"{len(missing)} steps have no groups although later ones have, step {min(missing)} first")
    logged = [line["step"] for line in metrics]
    if not finished:
        # A restart takes steps back in the ledger first, and a running run may have logged another one meanwhile.
        logged = [step for step in logged if step <= max(steps, default=0)]
        if steps and logged == steps[:-1]:  # its last step has not been logged yet
            del by_step[steps.pop()]
    for step, trained in sorted(by_step.items()):
        if len(trained) != groups_per_step:
            problems.append(f"step {step} trained {len(trained)} groups, not {groups_per_step}: {trained}")
    if logged != steps:
        pairs = enumerate(zip_longest(logged, steps, fillvalue="none"), 1)
        line, (has, due) = next((line, pair) for line, pair in pairs if pair[0] != pair[1])
        problems.append(f"metrics.jsonl and the ledger differ: line {line} has step {has}, and step {due} is due")
    return problems
