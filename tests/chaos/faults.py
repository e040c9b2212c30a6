"""The faults of one start of a run: when each is due, how it is done, and when the run has recovered from it.

A plan is a list of faults, done one after the other. Each is done in its phase, once the run has recovered from the
fault before and has trained another step. Every fault and every recovery is a line of `faults.jsonl`, beside the plan:

    {"fault": 0, "phase": "generating", "target": "engine", "signal": "KILL", "pids": [7], "step": 3, "time": 1.7e9}
    {"fault": 0, "recovery_s": 21.3, "step": 6, "steps_back": 0, "requeued": 2, "regenerated": 0, "alive": []}
    {"step": 7, "time": 1.7e9}                                      the run has ended a step
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
from damage import corrupt_weights, fill_disk, fill_object_store, set_mirror_back
from processes import find, runs

from evidence.lines import AppendedLines
from orchestration.loop.training import Training
from orchestration.supervision.rollout_pool import RolloutPool

# Each phase, and after how many seconds of it its fault is done.
PHASES = {
    "generating": 0.3,  # the request is at the engine
    "scoring": 0.05,  # the referee is being asked
    "assembling": 0.0,  # the groups of a step are taken and laid out
    "in the step": 0.08,  # the ranks compute
    "gathering": 0.02,  # the ranks stream their weights to the weights actor
    "publishing": 0.02,  # the engines load them
    "checkpointing": 0.1,  # the ranks copy a checkpoint out, and write it in the background
}
SIGNALS = {"KILL": signal.SIGKILL, "STOP": signal.SIGSTOP, "TERM": signal.SIGTERM}
PAUSE_S = 20  # of PAUSE, which is STOP and then CONT
DAMAGE = {
    "CORRUPT": corrupt_weights,
    "MISS": set_mirror_back,
    "FULL": fill_object_store,
    "NO_ROOM": fill_disk,
}
DAMAGE_STEPS = 4  # after so many steps the damage is undone; a checkpoint is written in between
# The counter of _Before that rises when the run notices the fault.
COUNTED = {
    "engine": "engines",
    "engine_core": "engines",
    "referee": "referees",
    "referee_core": "referees",
    "rank": "lineages",
    "decoder": "decoders",
}
FILE = "faults.jsonl"


@dataclass(frozen=True)
class Fault:
    """`target`: a kind of process, or several joined by "+". `signal`: KILL, STOP, TERM, PAUSE, or a kind of DAMAGE."""

    phase: str
    target: str
    signal: str

    def __str__(self) -> str:
        return f"{self.signal} {self.target} while {self.phase}"

    @property
    def targets(self) -> list[str]:
        return self.target.split("+")


@dataclass
class _Before:
    """The counters of the run when a fault was done."""

    step: int
    lineages: int
    engines: int
    referees: int
    decoders: int
    refused: int
    forced: int
    requeued: int
    regenerated: int
    at: float = field(default_factory=time.time)


class Faults:
    """To be called from the driver: `training_began`, `step_ended`, and `phase` around what a phase does."""

    def __init__(self, plan: Path) -> None:
        self.waiting = [Fault(**fault) for fault in json.loads(plan.read_text(encoding="utf-8"))]
        self.lines = AppendedLines(plan.with_name(FILE))
        self.training: Training | None = None
        self.lineages = self.steps = self.requeued = self.regenerated = 0
        self._number = sum('"phase"' in line for line in self.lines.path.read_text(encoding="utf-8").splitlines())
        self._current: Fault | None = None
        self._before: _Before | None = None
        self._done: list[psutil.Process] = []
        self._undo: Callable[[], None] | None = None
        self._lock = threading.Lock()

    def training_began(self, training: Training) -> None:
        """A lineage begins."""
        self.training = training
        self.lineages += 1

    def step_ended(self, step: int) -> None:
        """A step has ended; `steps` counts those since the last fault, or since the run recovered from it."""
        with self._lock:
            self.steps += 1
            self._line({"step": step, "time": time.time()})
            if self._undo is not None and self.steps >= DAMAGE_STEPS:
                self._undo()
                self._undo = None
            if self._current is not None and self._before is not None and self._recovered():
                self._line({"fault": self._number, **self._recovery(step, self._before)})
                self._current = self._before = None
                self._number += 1
                self.steps = 0

    @contextmanager
    def phase(self, name: str, under_way: Callable[[], bool] | None = None) -> Iterator[None]:
        """Around the work of a phase. `under_way`: whether it goes on, for work that goes on in the background."""
        over = threading.Event()
        self._entered(name, under_way or (lambda: not over.is_set()))
        try:
            yield
        finally:
            over.set()

    def _entered(self, phase: str, under_way: Callable[[], bool]) -> None:
        with self._lock:
            due = self.waiting and self._current is None and self.steps >= 1
            if not due or self.waiting[0].phase != phase:
                return
            self._current, self.steps = self.waiting.pop(0), 0
        if PHASES[phase] == 0 or self._current.signal in DAMAGE:
            self._do(self._current, under_way)
        else:
            timer = threading.Timer(PHASES[phase], self._do, (self._current, under_way))
            timer.daemon = True
            timer.start()

    def _do(self, fault: Fault, under_way: Callable[[], bool]) -> None:
        assert self.training is not None
        found = [find(target, os.getpid()) for target in fault.targets] if fault.signal not in DAMAGE else []
        late = fault.signal not in DAMAGE and not under_way()
        before = self._counters()
        with self._lock:
            # The phase is over already, or a process is being restarted: the next time that it is entered will do.
            if late or not all(found):
                self.waiting.insert(0, fault)
                self._current = None
                return
            processes = self._done = [kind[self._number % len(kind)] for kind in found]
            pids = [process.pid for process in processes]
            self._line({"fault": self._number, **asdict(fault), "pids": pids, "step": before.step, "time": before.at})
        for process in processes:
            _send(process, fault.signal)
        if fault.signal in DAMAGE:
            self._undo = DAMAGE[fault.signal](self.training)
        with self._lock:
            self._before = before

    def _counters(self) -> _Before:
        assert self.training is not None
        pipeline = self.training.parts.pipeline
        return _Before(
            self.training.admission.step,
            self.lineages,
            pipeline.rollout_pool.restarts,
            pipeline.referee.restarts,
            pipeline.store.counters()["decoder_deaths"],
            pipeline.rollout_pool.refused_updates,
            self.training.parts.weights.forced,
            self.requeued,
            self.regenerated,
        )

    def _recovered(self) -> bool:
        """Whether the run has noticed the fault, all runs again, and a step has ended since."""
        assert self.training is not None
        assert self._before is not None
        assert self._current is not None
        pool, before, now = self.training.parts.pipeline.rollout_pool, self._before, self._counters()
        referees = [r for pool in self.training.parts.pipeline.referee._pools for r in pool._replicas]
        if not all(member.running for member in (*pool._engines, *referees)):
            return False
        if self._current.signal in ("CORRUPT", "MISS"):  # it is refused, and sound weights are loaded
            followed = self._current.target == "weights" or now.forced > before.forced
            return followed and now.refused > before.refused and self.steps > DAMAGE_STEPS
        if self._current.signal == "PAUSE":
            return time.time() - before.at > PAUSE_S
        if self._current.signal in DAMAGE:
            return self.steps > DAMAGE_STEPS
        if self._current.target == "mirror" and self._current.signal == "STOP":
            return now.forced > before.forced
        # Ray starts these again, so that the run may not notice their death.
        if {"weights", "mirror"} & set(self._current.targets):
            return self.steps > 1
        if not set(self._current.targets) <= COUNTED.keys():
            return False  # it ends the run, after this step if it is TERM
        return all(getattr(now, COUNTED[target]) > getattr(before, COUNTED[target]) for target in self._current.targets)

    def _recovery(self, step: int, before: _Before) -> dict[str, Any]:
        assert self.training is not None
        back = before.step - self.training.begin.state.step if self.lineages > before.lineages else 0
        return {
            "recovery_s": round(time.time() - before.at, 2),
            "step": step,
            "steps_back": back,
            "requeued": self.requeued - before.requeued,
            "regenerated": self.regenerated - before.regenerated,
            "alive": [process.pid for process in self._done if runs(process)],
        }

    def _line(self, facts: dict[str, Any]) -> None:
        self.lines.write([json.dumps(facts)])


def is_loading(pool: RolloutPool) -> bool:
    """Whether an engine does not hold the published weights yet."""
    return any(engine.version != pool.published for engine in pool._engines)


def _send(process: psutil.Process, name: str) -> None:
    if name == "PAUSE":
        # The driver cannot wake itself up.
        subprocess.Popen(["sh", "-c", f"sleep {PAUSE_S}; kill -CONT {process.pid}"])
        name = "STOP"
    process.send_signal(SIGNALS[name])
