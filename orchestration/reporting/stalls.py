"""Who waits for whom when no group of a run ends.

The parts give the facts; times are in seconds of one clock. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from orchestration.reporting.display import clock

MOST_NAMED = 6  # groups of one line


class Stage(StrEnum):
    """What a group waits for, in the order in which it passes."""

    FRAMES = "its frames"
    ENGINE = "an engine that may start it"
    COMPLETIONS = "its completions"
    REFEREE = "the referee"
    TRAINING = "the groups before it"


@dataclass(frozen=True)
class GroupFacts:
    """since: when the group began to wait. engine: the name of the one that generates it."""

    group: int
    stage: Stage
    since: float
    engine: str | None = None


@dataclass(frozen=True)
class EngineFacts:
    """loads: the version that it has to load. restarts: whether it is being replaced. since: when it began to do so.
    evaluates: the version for whose evaluation it is set aside."""

    name: str
    version: int
    groups: int
    loads: int | None = None
    restarts: bool = False
    since: float = 0.0
    evaluates: int | None = None


@dataclass(frozen=True)
class RefereeFacts:
    """asked: the calls under way. restarts: whether it is being replaced."""

    name: str
    asked: int
    restarts: bool = False


@dataclass(frozen=True)
class Facts:
    """groups: those under way and ready, in the order of admission. anchor: the first that is not ready; only some of
    those after it may be trained before it. needed: groups of a step. oldest_startable: the oldest engine version that
    may start a group. no_room: groups for whose frames the store has no room. learner: what it does, and since when."""

    groups: Sequence[GroupFacts]
    anchor: int | None
    needed: int
    oldest_startable: int
    engines: Sequence[EngineFacts]
    referees: Sequence[RefereeFacts]
    no_room: int
    learner: tuple[str, float]


def report(facts: Facts, now: float) -> str:
    """A line for the learner, for the anchor, for each stage in which groups wait, and for what they wait for."""

    def named(groups: Sequence[GroupFacts]) -> str:
        numbers = ", ".join(str(group.group) for group in groups[:MOST_NAMED])
        more = f" and {len(groups) - MOST_NAMED} more" if len(groups) > MOST_NAMED else ""
        return f"group{'s' if len(groups) > 1 else ''} {numbers}{more}"

    waiting = {stage: [group for group in facts.groups if group.stage is stage] for stage in Stage}
    doing, since = facts.learner
    ready = len(waiting[Stage.TRAINING])
    lines = [f"learner: {doing}, for {clock(now - since)}; {ready} groups are ready, a step takes {facts.needed}"]
    for anchor in (group for group in facts.groups if group.group == facts.anchor):
        lines.append(f"group {anchor.group}, which holds back those after it: waits for {_awaited(anchor)}")
        lines[-1] += f", for {clock(now - anchor.since)}"
    for stage, groups in waiting.items():
        if groups:
            longest = clock(now - min(group.since for group in groups))
            lines.append(f"waiting for {_plural(stage)}: {named(groups)}, the longest for {longest}")
        if stage is Stage.FRAMES and facts.no_room:
            lines[-1] += f"; {facts.no_room} for room in the frame store (cluster.frames_gib)"
    if waiting[Stage.ENGINE] or waiting[Stage.COMPLETIONS]:
        lines += [_engine(engine, facts, now) for engine in facts.engines]
    if waiting[Stage.REFEREE]:
        lines += [
            f"{referee.name}: {'restarts' if referee.restarts else 'runs'}, {referee.asked} calls under way"
            for referee in facts.referees
        ]
    return "\n".join(f"  {line}" for line in lines)


def _awaited(group: GroupFacts) -> str:
    return group.stage if group.engine is None else f"{group.stage}, on {group.engine}"


def _plural(stage: Stage) -> str:
    return stage.replace("its ", "their ").replace("start it", "start them").replace("before it", "before them")


def _engine(engine: EngineFacts, facts: Facts, now: float) -> str:
    generated = [group.group for group in facts.groups if group.engine == engine.name]
    parts = [f"{engine.name}: version {engine.version}"]
    if engine.restarts:
        parts = [f"{engine.name}: restarts, for {clock(now - engine.since)}"]
    elif engine.loads is not None:
        parts.append(f"loads version {engine.loads}, for {clock(now - engine.since)}")
    if engine.evaluates is not None:
        parts.append(f"is set aside to evaluate version {engine.evaluates}")
    elif not engine.restarts and engine.version < facts.oldest_startable:
        parts.append(f"may start no group before version {facts.oldest_startable}")
    parts.append(f"generates {engine.groups} groups" + (f" ({', '.join(map(str, generated))})" if generated else ""))
    return ", ".join(parts)


class Ends:
    """When the groups of a run ended. `begin`: when the run did."""

    def __init__(self) -> None:
        self.last: float | None = None
        self._longest_s = 0.0

    def note(self, now: float) -> None:
        """A group ended, or the first one began."""
        self._longest_s, self.last = self.longest_s(now), now

    def longest_s(self, now: float) -> float:
        """The longest time so far in which no group ended, seconds."""
        return self._longest_s if self.last is None else max(self._longest_s, now - self.last)
