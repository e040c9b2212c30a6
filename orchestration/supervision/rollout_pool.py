"""The engines as the loop sees them: who may start a group, how new weights reach them, and what happens when one dies.

Guarantees: a group starts only on an engine that admission allows, so a slow update holds work back instead of ageing
it; an engine that dies is started again and given the current weights before it is used; every wait has an end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from evidence.errors import RunFailed
from evidence.types import Prompt, Trajectory
from rollout.actor import RolloutActor
from rollout.engine import EngineConfig, WeightStore

START_TIMEOUT_S = 900.0
UPDATE_TIMEOUT_S = 300.0
# Engines that die more often than this in one run do not die of chance.
MAX_RESTARTS = 8


class RolloutPoolLost(RunFailed):
    """Engines die faster than it makes sense to start them anew, or one cannot be brought up to date."""


@dataclass
class _Engine:
    actor: Any
    version: int
    running: int = 0
    alive: bool = True


class RolloutPool:
    """Rollout engines of one policy. To be used from one event loop."""

    def __init__(
        self,
        config: EngineConfig,
        banned_ids: Sequence[int],
        store: WeightStore,
        size: int,
        gpus: float,
        timeout_s: float,
    ):
        """`gpus` of each engine; `timeout_s` bounds one generation."""
        self._new = lambda: RolloutActor.options(num_cpus=0, num_gpus=gpus).remote(config, banned_ids, store)
        self._size, self._timeout_s = size, timeout_s
        self._engines: list[_Engine] = []
        self._changed = asyncio.Condition()
        self._background: set[asyncio.Task[None]] = set()
        self._lost: BaseException | None = None
        self.published = 0
        self.restarts = 0

    async def start(self) -> None:
        actors = [self._new() for _ in range(self._size)]
        async with asyncio.timeout(START_TIMEOUT_S):
            await asyncio.gather(*(actor.start.remote() for actor in actors))
        self._engines = [_Engine(actor, 0) for actor in actors]

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
        """`n` trajectories and the oldest version that had a part in them, on the least busy engine that may start.

        `order`: which frame is shown at each frame's place; as they are if None.
        Raises what the generation raised; an engine that died is replaced in the background. Raises FleetLost.
        """

        def fit() -> list[_Engine]:
            if self._lost is not None:
                raise RolloutPoolLost(str(self._lost)) from self._lost
            return [e for e in self._engines if e.alive and may_start(e.version)]

        async with asyncio.timeout(START_TIMEOUT_S + self._timeout_s), self._changed:
            await self._changed.wait_for(fit)
            engine = min(fit(), key=lambda e: e.running)
            engine.running += 1
        actor = engine.actor
        try:
            # The actor times itself out; the margin is for one that no longer can.
            async with asyncio.timeout(self._timeout_s + 60):
                return await actor.generate.remote(
                    prompt, frames, n, temperature, max_tokens, seed, self._timeout_s, order
                )
        except ray.exceptions.RayActorError:
            self._replace(engine, actor)
            raise
        finally:
            engine.running -= 1

    def update(self, version: int) -> None:
        """Bring every engine to published weights `version`, in flight and in the background."""
        self.published = version
        for engine in self._engines:
            if engine.alive:
                self._in_background(self._update(engine, version))

    async def settled(self) -> None:
        """Until no update is under way. Raises FleetLost."""
        await asyncio.gather(*self._background, return_exceptions=True)
        if self._lost is not None:
            raise RolloutPoolLost(str(self._lost)) from self._lost

    async def _update(self, engine: _Engine, version: int) -> None:
        actor = engine.actor
        try:
            async with asyncio.timeout(UPDATE_TIMEOUT_S):
                await actor.update_weights.remote(version)
        except ray.exceptions.RayActorError:
            self._replace(engine, actor)
            return
        engine.version = version

    def _replace(self, engine: _Engine, actor: Any) -> None:
        """Start a dead engine anew, once, however many groups saw it die."""
        if engine.alive and engine.actor is actor:
            engine.alive = False
            self._in_background(self._revive(engine))

    async def _revive(self, engine: _Engine) -> None:
        while True:
            self.restarts += 1
            if self.restarts > MAX_RESTARTS:
                raise RolloutPoolLost(f"engines died {self.restarts} times; the worker logs of Ray say why")
            ray.kill(engine.actor)  # it may only have been out of reach, and would keep its memory
            engine.actor, engine.version = self._new(), 0
            try:
                async with asyncio.timeout(START_TIMEOUT_S):
                    await engine.actor.start.remote()
                    while engine.version != self.published:
                        target = self.published
                        await engine.actor.update_weights.remote(target)
                        engine.version = target
            except ray.exceptions.RayActorError:
                continue
            engine.alive = True
            return

    def _in_background(self, work: Any) -> None:
        """Run, keep what went wrong for whoever asks next, and wake those who wait."""

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
