"""Which faults are tried, in which starts of a run. The same seed gives the same starts."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from faults import PHASES, Fault
from processes import ACTORS, CORES
from torn import RECORD_REMOVED

KILLS = [Fault(phase, target, "KILL") for target in (*ACTORS, *CORES) if target != "mirror" for phase in PHASES]
STOPS = [
    Fault("generating", "engine", "STOP"),
    Fault("generating", "engine_core", "STOP"),
    Fault("scoring", "referee", "STOP"),
    Fault("scoring", "referee_core", "STOP"),
    Fault("in the step", "rank", "STOP"),
    Fault("generating", "decoder", "STOP"),
    Fault("gathering", "weights", "STOP"),
    Fault("in the step", "driver", "PAUSE"),
    Fault("in the step", "raylet", "PAUSE"),
    Fault("in the step", "gcs", "PAUSE"),
]
OTHERS = [
    Fault("publishing", "weights", "CORRUPT"),
    Fault("generating", "object store", "FULL"),
    Fault("in the step", "disk", "NO_ROOM"),
    Fault("in the step", "engine_core+rank", "KILL"),
    Fault("generating", "engine+referee", "KILL"),
]
# Where only what changed of the weights is published.
CHANGES = [
    *(Fault(phase, "mirror", "KILL") for phase in PHASES),
    Fault("generating", "mirror", "STOP"),
    Fault("publishing", "changes", "CORRUPT"),
    Fault("gathering", "mirror", "MISS"),
]
ONLY_CHANGES = ("pacing.full_every=1000", "limits.update_s=40")
# Each ends its start of the run, which is then resumed.
ENDS = [
    Fault(phase, target, "KILL")
    for target in ("driver", "raylet", "gcs")
    for phase in ("generating", "in the step", "checkpointing")
]
INTERRUPTED = Fault("generating", "driver", "TERM")
# What is done to the newest checkpoint between the death of a driver and the resume.
TORN = {"in the step": "a shard of the newest checkpoint is cut short", "checkpointing": RECORD_REMOVED}
MOST_FAULTS = 10
# What stands still is noticed by these limits only.
SHORT_LIMITS = tuple(f"limits.{key}_s=30" for key in ("step", "publish", "generation", "update", "heartbeat"))


@dataclass(frozen=True)
class Start:
    """One start of a run: its faults, of which the last one ends it, and its own settings. torn: what is done to the
    newest checkpoint afterwards."""

    faults: tuple[Fault, ...]
    settings: tuple[str, ...] = ()
    torn: str = ""


def starts(seed: int, wanted: Callable[[str], bool]) -> list[Start]:
    """All faults that are `wanted`, by their names, in starts of at most MOST_FAULTS."""
    faults = [fault for fault in KILLS + OTHERS if wanted(str(fault))]
    stops = [fault for fault in STOPS if wanted(str(fault))]
    ends = [fault for fault in ENDS if wanted(str(fault))]
    random.Random(seed).shuffle(faults)
    changes = [fault for fault in CHANGES if wanted(str(fault))]
    number = max(len(ends) - bool(stops) - bool(changes), math.ceil(len(faults) / (MOST_FAULTS - 1)))
    shares: list[tuple[list[Fault], tuple[str, ...]]] = [(faults[n::number], ()) for n in range(number)]
    for own, settings in ((stops, SHORT_LIMITS), (changes, ONLY_CHANGES)):
        if own:
            shares.insert(len(shares) // 2, (own, settings))
    planned = []
    for share, settings in shares:
        end = ends.pop(0) if ends else INTERRUPTED
        torn = TORN.get(end.phase, "") if end.target == "driver" and end.signal == "KILL" else ""
        planned.append(Start((*share, end), settings, torn))
    return planned


def matching(only: str, leave_out: str) -> Callable[[str], bool]:
    """Whether a fault is wanted, by two regular expressions."""
    return lambda name: bool(re.search(only, name)) and not (leave_out and re.search(leave_out, name))
