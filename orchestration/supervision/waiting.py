"""Waiting for the learner's ranks, or another actor without which the run cannot go on.

Guarantees: a death, or no answer within the limit, ends the wait with one line that names the actor, what it was doing
and, for a limit, the key that sets it. An error that an actor's own code raised is passed on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ray

from evidence.errors import RunFailed

# Added to a timeout that an actor enforces itself, for one that no longer can.
MARGIN_S = 60.0
# Seconds in which Ray has noticed the death of an actor: at once on a node that lives, and after five health checks,
# 3 s apart, with a node that was lost.
DEATH_KNOWN_S = 30.0


class ActorLost(RunFailed):
    """An actor without which the run cannot go on died or does not answer."""


def died(actor: str, doing: str) -> str:
    return f"{actor} died while {doing}; the logs of Ray's workers say why"


def no_answer(actor: str, doing: str, seconds: float, key: str) -> str:
    return f"{actor} did not answer within {seconds:g} s while {doing} (limits.{key})"


def first_line(error: BaseException) -> str:
    """An error as one line. Ray wraps what an actor raised: the wrapper's text holds a stack trace, its cause's not."""
    cause = getattr(error, "cause", error)
    lines = str(cause).splitlines() or [""]
    return f"{type(cause).__name__}: {lines[0]}"


def results(
    refs: Sequence[ray.ObjectRef], actors: Mapping[str, Any], doing: str, seconds: float, key: str
) -> list[Any]:
    """The value of each ref. `actors`: who makes them, by name, in their order; `doing`: what they do, for messages;
    `key`: the limit.

    Raises ActorLost as soon as one actor has died, although its peers may still wait for it in a collective.
    """
    names = dict(zip(refs, actors, strict=True))
    values: dict[ray.ObjectRef, Any] = {}
    waiting, deadline = list(names), time.monotonic() + seconds
    while waiting:
        done, waiting = ray.wait(waiting, timeout=max(0.0, deadline - time.monotonic()))
        if not done:
            raise ActorLost(no_answer(", ".join(names[ref] for ref in waiting), doing, seconds, key))
        for ref in done:
            try:
                values[ref] = ray.get(ref)
            except ray.exceptions.RayActorError:
                raise ActorLost(died(names[ref], doing)) from None
            except ray.exceptions.RayTaskError:
                for name in dead(actors):
                    raise ActorLost(died(name, doing)) from None
                raise
    return [values[ref] for ref in refs]


def dead(actors: Mapping[str, Any]) -> Iterator[str]:
    """The names of those that have died, as soon as that is known. The peers of a dead rank can fail in their
    collective before, so this waits a little for actors that do not answer; they may be busy."""
    pings = {actor.__ray_ready__.remote(): name for name, actor in actors.items()}
    waiting, deadline = list(pings), time.monotonic() + DEATH_KNOWN_S
    while waiting:
        ended, waiting = ray.wait(waiting, timeout=max(0.0, deadline - time.monotonic()))
        for ping in ended:
            try:
                ray.get(ping)
            except ray.exceptions.RayActorError:
                yield pings[ping]
        if not ended:
            return
