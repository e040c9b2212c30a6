"""The pool of rollout engines: which engine may start a group, how weights reach the engines, and their restarts.

Guarantees: a group starts only on an engine that admission allows, so a slow update delays groups instead of ageing
them; an engine that dies is restarted and brought to the published weights before it is used; every wait has a timeout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from evidence.errors import RunFailed
from evidence.supervision import BudgetSpent, Lifecycle, RestartBudget, Supervised, actor_class
from evidence.types import Prompt, Trajectory
from rollout.actor import RolloutActor
from rollout.engine import EngineConfig, WeightStore

START_TIMEOUT_S = 900.0
UPDATE_TIMEOUT_S = 300.0
# More deaths than this in one run are no coincidence; the run ends.
MAX_RESTARTS = 8


class RolloutPoolLost(RunFailed):
    """Engines keep dying, or an engine cannot be brought up to date."""


@dataclass
class _Engine:
    """version: the weight version it holds. groups: the number of groups it is generating."""

    version: int = 0
    groups: int = 0
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
        timeout_s: float,
    ):
        """`size` engines with `gpus` GPUs each. `timeout_s` bounds one generation."""
        engine_class = actor_class(RolloutActor).options(num_cpus=0, num_gpus=gpus)
        self._create = lambda: engine_class.remote(config, banned_ids, store)
        self._size, self._timeout_s = size, timeout_s
        self._engines: list[_Engine] = []
        self._budget = RestartBudget(MAX_RESTARTS)
        self._changed = asyncio.Condition()
        self._background: set[asyncio.Task[None]] = set()
        self._lost: BaseException | None = None
        self.published = 0

    @property
    def restarts(self) -> int:
        return self._budget.used

    async def start(self) -> None:
        actors = [self._create() for _ in range(self._size)]
        async with asyncio.timeout(START_TIMEOUT_S):
            await asyncio.gather(*(actor.start.remote() for actor in actors))
        self._engines = [self._engine(actor) for actor in actors]

    def _engine(self, actor: Any) -> _Engine:
        engine = _Engine()

        async def ready(successor: Any) -> None:
            engine.version = 0
            async with asyncio.timeout(START_TIMEOUT_S):
                await successor.start.remote()
                while engine.version != self.published:
                    target = self.published
                    await successor.update_weights.remote(target)
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

        Waits for an engine whose version `may_start` accepts and takes the least busy one. `order`: the frame shown at
        each frame's place; None keeps the order. Raises whatever the generation raises (an engine that died is
        replaced in the background), and RolloutPoolLost.
        """

        def startable() -> list[_Engine]:
            self._raise_if_lost()
            return [e for e in self._engines if e.supervised.running and may_start(e.version)]

        async with asyncio.timeout(START_TIMEOUT_S + self._timeout_s), self._changed:
            await self._changed.wait_for(startable)
            engine = min(startable(), key=lambda e: e.groups)
            engine.groups += 1
        actor = engine.supervised.actor
        try:
            # The actor enforces this timeout itself; the margin covers an actor that no longer can.
            async with asyncio.timeout(self._timeout_s + 60):
                return await actor.generate.remote(
                    prompt, frames, n, temperature, max_tokens, seed, self._timeout_s, order
                )
        except ray.exceptions.RayActorError:
            self._replace(engine, actor)
            raise
        finally:
            engine.groups -= 1

    def update(self, version: int) -> None:
        """Bring every engine to the published weights `version`, in flight and in the background."""
        self.published = version
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
            # A timeout has no text of its own.
            reason = str(self._lost) or f"{type(self._lost).__name__} while an engine was updated or restarted"
            raise RolloutPoolLost(reason) from self._lost

    async def _update(self, engine: _Engine, version: int) -> None:
        actor = engine.supervised.actor
        try:
            async with asyncio.timeout(UPDATE_TIMEOUT_S):
                await actor.update_weights.remote(version)
        except ray.exceptions.RayActorError:
            self._replace(engine, actor)
            return
        engine.version = version

    def _replace(self, engine: _Engine, actor: Any) -> None:
        if engine.supervised.replace(actor):
            self._in_background(self._replaced(engine))

    async def _replaced(self, engine: _Engine) -> None:
        try:
            await engine.supervised.settled()
        except BudgetSpent as error:
            raise RolloutPoolLost(f"the engines {error}; Ray's worker logs say why") from None

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work`, keep its error for the next caller, and wake the callers that wait for an engine."""

        async def watched() -> None:
            try:
                await work
            except Exception as error:
                self._lost = error
            async with self._changed:
                self._changed.notify_all()

        task = asyncio.create_task(watched())
        self._background.add(task)
        task.add_done_callback(self._background.discard)
