"""The pool of rollout engines: how groups and weights reach the engines, and the engines' restarts.

Guarantees: a group starts only on an engine that admission allows, so a slow update delays groups instead of ageing
them; groups are shared over the engines (dispatch.py); an engine that dies, or hangs while it generates, is restarted
and brought to the published weights before it is used; every wait has a timeout. An engine that hangs while it loads
weights ends the run when `limits.update_s` is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from evidence.errors import RunFailed
from evidence.limits import Limits
from evidence.supervision import BudgetSpent, Lifecycle, RestartBudget, Supervised, actor_class
from evidence.types import Prompt, Trajectory
from orchestration.reporting.stalls import EngineFacts
from orchestration.supervision.dispatch import OVERDUE_FACTOR, Dispatcher, EngineLoad, Request
from orchestration.supervision.waiting import died, no_answer
from rollout.actor import RolloutActor
from rollout.engine import EngineConfig, WeightStore

# More deaths than this in one run are no coincidence; the run ends.
MAX_RESTARTS = 8
# Sequences of a group end one by one, so about half of those running have ended. With twice as many as an engine can
# decode at once, its own queue is never empty while groups wait.
SEQUENCES_FACTOR = 2
# Added to the timeout that an actor enforces itself, for one that no longer can.
MARGIN_S = 60.0


class RolloutPoolLost(RunFailed):
    """Engines keep dying, or an engine cannot be brought up to date."""


class GenerationTimeout(RunFailed, TimeoutError):
    """A group was not started or not finished in time; it can be tried again."""


@dataclass(eq=False)
class _Engine(EngineLoad):
    """number: names the engine in messages. since: when it began to restart or to load weights."""

    number: int = 0
    since: float = 0.0
    supervised: Supervised[Any] = field(init=False)


class RolloutPool:
    """Rollout engines of one policy. Use it from one event loop."""

    def __init__(
        self,
        config: EngineConfig,
        banned_ids: Sequence[int],
        store: WeightStore,
        size: int,
        gpus: float,
        limits: Limits,
    ):
        """`size` engines with `gpus` GPUs each."""
        engine_class = actor_class(RolloutActor).options(num_cpus=0, num_gpus=gpus)
        self._create = lambda: engine_class.remote(config, banned_ids, store)
        self._most_sequences = SEQUENCES_FACTOR * config.max_num_seqs
        self._size, self._limits = size, limits
        self._engines: list[_Engine] = []
        self._dispatcher = Dispatcher()
        self._budget = RestartBudget(MAX_RESTARTS)
        self._waiting: set[asyncio.Future[None]] = set()
        self._running: dict[asyncio.Task[Any] | None, Request] = {}  # by the task that asked
        self._background: set[asyncio.Task[None]] = set()
        self._lost: RolloutPoolLost | None = None
        self._last_start = 0.0  # when a request last started, by the event loop's clock
        self._update_times: list[float] = []  # of the current publication, seconds
        self._usual_update_s: float | None = None  # of the publication before
        self.published = 0

    @property
    def restarts(self) -> int:
        return self._budget.used

    def take_begun(self) -> list[int]:
        """Groups begun per engine since the last call."""
        return self._dispatcher.take_begun()

    def engine_facts(self) -> list[EngineFacts]:
        """What each engine does."""
        return [
            EngineFacts(
                engine.number,
                engine.version,
                engine.groups,
                loads=None if engine.version == self.published else self.published,
                restarts=not engine.live,
                since=engine.since,
            )
            for engine in self._engines
        ]

    def running(self, task: asyncio.Task[Any] | None) -> tuple[float, int] | None:
        """(since when, on which engine) what `task` asked for is generated; None if it waits for an engine."""
        request = self._running.get(task)
        engine: Any = request.engine if request else None
        return None if request is None else (request.began, engine.number)

    async def start(self) -> None:
        engines = [self._engine(number, self._create()) for number in range(self._size)]
        await asyncio.gather(*map(self._first_load, engines))
        self._engines = self._dispatcher.engines = engines

    def _engine(self, number: int, actor: Any) -> _Engine:
        engine = _Engine(number=number, most_sequences=self._most_sequences)

        async def ready(successor: Any) -> None:
            engine.version, engine.seconds = 0, None
            await self._load(engine, successor)
            while engine.version != self.published:
                target = self.published
                await self._load_weights(engine, successor, target)
                engine.version = target

        lifecycle = Lifecycle(self._create, ready, ray.kill, (ray.exceptions.RayActorError,))
        engine.supervised = Supervised(actor, lifecycle, self._budget)
        return engine

    async def generate(
        self,
        may_start: Callable[[int], bool],
        prompt: Prompt,
        frames: ray.ObjectRef,
        n: int,
        temperature: float,
        max_tokens: int,
        seed: int,
        order: tuple[int, ...] | None = None,
    ) -> tuple[tuple[Trajectory, ...], int]:
        """Return `n` trajectories, and the oldest version that drew any of their tokens or computed any of their KV.

        Waits for an engine whose version `may_start` accepts. `order`: the frame shown at each frame's place; None
        keeps the order. Raises whatever the generation raises (an engine that died is replaced in the background),
        GenerationTimeout, and RolloutPoolLost.
        """
        request = await self._started(may_start, n, len(prompt.token_ids) + n * max_tokens)
        engine: Any = request.engine
        self._running[asyncio.current_task()] = request
        actor, timeout_s = engine.supervised.actor, self._limits.generation_s
        try:
            # The actor enforces this timeout itself; the margin covers an actor that no longer can.
            async with asyncio.timeout(timeout_s + MARGIN_S):
                result = await actor.generate.remote(prompt, frames, n, temperature, max_tokens, seed, timeout_s, order)
            self._dispatcher.finished(request)
            return result
        except TimeoutError as error:
            hangs = not isinstance(error, ray.exceptions.RayTaskError)  # or the actor's own timeout had ended it
            if hangs:
                self._replace(engine, actor)
            raise GenerationTimeout(
                no_answer(f"rollout engine {engine.number}", "generating a group", timeout_s, "generation_s")
            ) from None
        except ray.exceptions.RayActorError:
            self._replace(engine, actor)
            raise
        finally:
            del self._running[asyncio.current_task()]
            self._dispatcher.remove(request)

    async def _started(self, may_start: Callable[[int], bool], sequences: int, tokens: int) -> Request:
        """A request that has started on its engine. Raises RolloutPoolLost, and GenerationTimeout if for `stall_s` no
        request of the pool has started: a long queue that moves is no reason to give up."""
        self._raise_if_lost()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def started() -> None:
            self._last_start = loop.time()
            if not future.done():  # cancelled, and about to be removed
                future.set_result(None)

        request = Request(may_start, sequences, tokens, started)
        self._waiting.add(future)
        self._dispatcher.add(request)
        stall_s, asked = self._limits.stall_s, loop.time()
        try:
            while not future.done():
                left = max(asked, self._last_start) + stall_s - loop.time()
                if left <= 0:
                    raise GenerationTimeout(
                        f"no rollout engine could start a group within {stall_s:g} s (limits.stall_s)"
                    )
                await asyncio.wait([future], timeout=left)
            future.result()
            return request
        except BaseException:
            self._dispatcher.remove(request)
            raise
        finally:
            self._waiting.discard(future)

    def update(self, version: int) -> None:
        """Bring every engine to the published weights `version`, in flight and in the background."""
        self.published = version
        if self._update_times:
            self._usual_update_s = sorted(self._update_times)[(len(self._update_times) - 1) // 2]
            self._update_times = []
        for engine in self._engines:
            if engine.supervised.running:
                self._in_background(self._update(engine, version))

    async def settled(self) -> None:
        """Wait until all updates and restarts have ended. Raises RolloutPoolLost."""
        while self._background:  # an update that meets a dead engine adds its restart
            await asyncio.gather(*self._background, return_exceptions=True)
        self._raise_if_lost()

    def _raise_if_lost(self) -> None:
        if self._lost is not None:
            raise self._lost

    async def _first_load(self, engine: _Engine) -> None:
        try:
            await self._load(engine, engine.supervised.actor)
        except ray.exceptions.RayActorError:
            raise RolloutPoolLost(died(f"rollout engine {engine.number}", "loading the model")) from None

    async def _load(self, engine: _Engine, actor: Any) -> None:
        """Wait until a new actor has loaded the model folder. Raises RayActorError, RolloutPoolLost."""
        limit_s = self._limits.start_s
        try:
            async with asyncio.timeout(limit_s):
                engine.most_tokens = await actor.start.remote()
        except TimeoutError:
            raise RolloutPoolLost(
                no_answer(f"rollout engine {engine.number}", "loading the model", limit_s, "start_s")
            ) from None

    async def _update(self, engine: _Engine, version: int) -> None:
        actor, loop = engine.supervised.actor, asyncio.get_running_loop()
        overdue = None
        if self._usual_update_s is not None:
            overdue = loop.call_later(OVERDUE_FACTOR * self._usual_update_s, self._overdue, engine)
        began = engine.since = loop.time()
        try:
            await self._load_weights(engine, actor, version)
        except ray.exceptions.RayActorError:
            self._replace(engine, actor)
            return
        finally:
            if overdue is not None:
                overdue.cancel()
            engine.overdue = False
        self._update_times.append(loop.time() - began)
        # The reply of an actor that was replaced meanwhile says nothing about its successor.
        if engine.supervised.actor is actor and engine.supervised.running:
            engine.version = version

    async def _load_weights(self, engine: _Engine, actor: Any, version: int) -> None:
        """Wait until the actor holds the weights. Raises RayActorError, RolloutPoolLost."""
        limit_s = self._limits.update_s
        try:
            async with asyncio.timeout(limit_s):
                await actor.update_weights.remote(version)
        except TimeoutError:
            doing = f"loading weights {version}"
            raise RolloutPoolLost(no_answer(f"rollout engine {engine.number}", doing, limit_s, "update_s")) from None

    def _overdue(self, engine: _Engine) -> None:
        engine.overdue = True
        self._dispatcher.start_waiting()

    def _replace(self, engine: _Engine, actor: Any) -> None:
        if engine.supervised.replace(actor):
            engine.live, engine.since = False, asyncio.get_running_loop().time()
            self._in_background(self._replaced(engine))

    async def _replaced(self, engine: _Engine) -> None:
        try:
            await engine.supervised.settled()
        except BudgetSpent as error:
            raise RolloutPoolLost(f"the engines {error}; Ray's worker logs say why") from None
        engine.live = True

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work`; then start what waits for an engine, or pass its error to all that wait and to later callers."""

        async def watched() -> None:
            try:
                await work
            except Exception as error:
                # Ray wraps an actor's error: the text of the wrapper holds a stack trace, its cause does not.
                self._lost = RolloutPoolLost(str(getattr(error, "cause", error)))
                for future in self._waiting:
                    if not future.done():
                        future.set_exception(self._lost)
            self._dispatcher.start_waiting()

        task = asyncio.create_task(watched())
        self._background.add(task)
        task.add_done_callback(self._background.discard)
