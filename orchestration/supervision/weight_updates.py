"""How published weights reach the rollout engines: in flight, each engine on its own, and until it holds the newest.

Guarantees: an engine that does not load a version within `limits.update_s` is replaced; one that refuses a version (it
was dropped meanwhile, could not be fetched or failed its checksum) keeps the weights that it has, is tried again with
growing pauses, and at once with whatever is published next; neither holds up the others or ends the run. An engine that
was restarted, or given back to training (aside.py), is not used before it holds the published version.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray

from orchestration.supervision.dispatch import OVERDUE_FACTOR, EngineLoad
from orchestration.supervision.fleet import Fleet, Member
from orchestration.supervision.waiting import died, first_line, no_answer
from rollout.engine import WeightsRefused

# Seconds between two attempts at the same version: doubled each time.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
# So many refusals of a version by each engine are no coincidence.
REFUSALS = 3
# The share of `limits.update_s` in which an engine must have fetched the weights. Fetching may hang because of another
# actor, which is no reason to replace the engine.
FETCH_SHARE = 0.5

log = logging.getLogger(__name__)


@dataclass(eq=False)
class RolloutEngine(EngineLoad, Member):
    """A rollout engine: what it runs, and where it is on its way to the published weights.

    loading: whether a version is being loaded. restarted: whether it has yet to load the published version since its
    restart. holds: the version that it keeps while it is set aside from training, else None. refusals: how often it
    refused the published version. refusal: why, the last time. news: set when a version is published. since: when it
    went down or began to load, by the event loop's clock.
    """

    loading: bool = False
    since: float = 0.0
    restarted: bool = False
    holds: int | None = None
    refusals: int = 0
    refusal: str = ""
    news: asyncio.Event = field(default_factory=asyncio.Event)


class WeightUpdates:
    """The published version, and the engines' ways to it. Use it from one event loop.

    start_waiting: called when an engine may have become able to start groups. refused: updates refused so far.
    slowest_s: the longest update of the publication before the last one, seconds.
    """

    def __init__(self, fleet: Fleet[RolloutEngine], start_waiting: Callable[[], object]):
        self._fleet, self._start_waiting = fleet, start_waiting
        self.published = self.refused = 0
        self.slowest_s = 0.0
        self._tasks: dict[RolloutEngine, asyncio.Task[None]] = {}
        self._times: list[float] = []  # of the current publication, seconds
        self._usual_s: float | None = None  # of the publication before
        self._ended = asyncio.Event()  # set, and replaced, whenever an engine stops loading

    @property
    def unloadable(self) -> str | None:
        """Why no engine can load the published version, if each that runs and is to load it has refused it REFUSALS
        times."""
        running = [e for e in self._fleet.members if e.running and self._wanted(e) == self.published]
        if running and all(engine.refusals >= REFUSALS for engine in running):
            return running[0].refusal
        return None

    def publish(self, version: int) -> None:
        """Bring every engine that is not set aside to the published weights `version`, in the background."""
        self.published = version
        if self._times:
            self._usual_s = sorted(self._times)[(len(self._times) - 1) // 2]
            self.slowest_s = max(self._times)
            self._times = []
        for engine in self._fleet.members:
            if self._wanted(engine) == version:
                engine.refusals, engine.overdue = 0, False
                engine.news.set()
                self._bring(engine)

    def catch_up(self, engine: RolloutEngine) -> None:
        """Bring an engine that is no longer set aside to the published version, before it is used."""
        engine.holds = None
        if engine.running and engine.version != self.published:
            engine.live = False
            engine.news.set()
            self._bring(engine)

    async def settled(self) -> None:
        """Wait until no engine loads weights, except for those that still catch up."""
        while any(engine.running and engine.loading and engine.live for engine in self._fleet.members):
            ended = self._ended
            await ended.wait()

    def changed(self, engine: RolloutEngine) -> None:
        """An engine has gone down or come up. One that comes up holds the weights of the model folder, version 0."""
        if not engine.running:
            engine.live, engine.restarted, engine.overdue = False, True, False
            if (task := self._tasks.pop(engine, None)) is not None:
                task.cancel()
            self._set_loading(engine, False)
            engine.since = asyncio.get_running_loop().time()
        elif engine.restarted:
            engine.version, engine.seconds, engine.refusals = 0, None, 0
            self._bring(engine)

    def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    def _wanted(self, engine: RolloutEngine) -> int:
        """The version that the engine is to have."""
        return self.published if engine.holds is None else engine.holds

    def _bring(self, engine: RolloutEngine) -> None:
        """Have a running engine load the version that it is to have, unless a task already sees to that."""
        if not engine.running or engine in self._tasks:
            return
        task = asyncio.create_task(self._brought(engine, engine.supervised.actor))
        self._tasks[engine] = task
        engine.since = asyncio.get_running_loop().time()
        self._set_loading(engine, True)

        def ended(task: asyncio.Task[None]) -> None:
            if self._tasks.get(engine) is task:
                del self._tasks[engine]
                self._set_loading(engine, False)
            if task.cancelled():
                return
            if (error := task.exception()) is not None:
                self._fleet.lose(engine, f"{engine.name}: {first_line(error)}")  # a defect
            elif engine.version != self._wanted(engine):  # published after the task had seen the last version
                self._bring(engine)

        task.add_done_callback(ended)

    async def _brought(self, engine: RolloutEngine, actor: Any) -> None:
        """Load the version that the engine is to have until it holds it, or is replaced."""
        while engine.version != (version := self._wanted(engine)):
            engine.news.clear()
            try:
                if not await self._loaded(engine, actor, version):
                    return
            except WeightsRefused as error:
                # One that hangs cannot fetch either, and is never silent for long enough between two attempts.
                if not await self._fleet.answers(engine, actor):
                    return
                self._refused(engine, version, error)
                # The version may have been dropped since another was published, which is then tried at once.
                pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(engine.refusals - 1, 16))
                self._set_loading(engine, engine.news.is_set())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await engine.news.wait()
                self._set_loading(engine, True)
            else:
                engine.version, engine.overdue, engine.refusals = version, False, 0
                self._start_waiting()
        engine.live, engine.restarted = True, False
        self._start_waiting()

    async def _loaded(self, engine: RolloutEngine, actor: Any, version: int) -> bool:
        """Whether the engine has loaded the version; one that dies or hangs is replaced. Raises WeightsRefused."""
        update_s, loop = self._fleet.limits.update_s, asyncio.get_running_loop()
        overdue = None
        if self._usual_s is not None:
            overdue = loop.call_later(OVERDUE_FACTOR * self._usual_s, self._overdue, engine)
        began, doing = loop.time(), f"loading weights {version}"
        engine.busy += 1
        try:
            async with asyncio.timeout(update_s):
                await actor.update_weights.remote(version, update_s * FETCH_SHARE)
            self._times.append(loop.time() - began)
            return True
        except WeightsRefused:
            raise
        except ray.exceptions.RayTaskError as error:  # which is also an instance of its cause's class
            self._fleet.replace(engine, actor, f"{engine.name} failed while {doing}: {first_line(error)}")
        except TimeoutError:
            self._fleet.replace(engine, actor, no_answer(engine.name, doing, update_s, "update_s"))
        except ray.exceptions.RayActorError:
            self._fleet.replace(engine, actor, died(engine.name, doing))
        finally:
            if overdue is not None:
                overdue.cancel()
            engine.busy -= 1
            engine.free_since = loop.time()
        return False

    def _set_loading(self, engine: RolloutEngine, loading: bool) -> None:
        engine.loading = loading
        if not loading:
            self._ended.set()
            self._ended = asyncio.Event()

    def _refused(self, engine: RolloutEngine, version: int, error: WeightsRefused) -> None:
        self.refused += 1
        engine.refusals += 1
        engine.refusal = first_line(error)
        if engine.refusals == 1:
            log.warning("%s keeps weights %d: %s", engine.name, engine.version, engine.refusal)
        if version == self.published:
            self._overdue(engine)

    def _overdue(self, engine: RolloutEngine) -> None:
        """The other engines take the share of an engine that is late."""
        engine.overdue = True
        self._start_waiting()
