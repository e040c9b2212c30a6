"""A rollout engine that is set aside from training, to evaluate one weight version while training goes on.

    aside = pool.set_aside()
    try:
        records = await aside.unless_lost(evaluate(aside.complete))
    finally:
        aside.give_back()

Guarantees: no group of training starts on the engine, and it loads no other version; every completion was drawn by the
version as a whole; an engine that can no longer measure its version, since it died and a newer one is published, goes
back at once, and so does one without which training would have no engine; an engine that goes back holds the published
version before it takes a group.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import ray

from evidence.types import Prompt, Trajectory
from orchestration.supervision.dispatch import Dispatcher
from orchestration.supervision.weight_updates import RolloutEngine

T = TypeVar("T")
Generate = Callable[..., Awaitable[tuple[tuple[Trajectory, ...], int]]]


class Unmeasurable(Exception):
    """A weight version cannot be evaluated, or no longer. The message is one line."""


class Aside:
    """The engine and the `version` that it holds. Use it from one event loop."""

    def __init__(self, engine: RolloutEngine, version: int, generate: Generate, give_back: Callable[[], None]):
        """`generate`: RolloutPool._generate. `give_back`: returns the engine to training, once."""
        self.engine, self.version, self.give_back = engine, version, give_back
        self.dispatcher = Dispatcher([engine])
        self._generate = generate
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def lost(self, reason: str) -> None:
        """Give the engine back before the evaluation has ended. `reason`: one line."""
        if not self._lost.done():
            self._lost.set_result(reason)
        self.give_back()

    async def complete(
        self, prompt: Prompt, frames: ray.ObjectRef, temperature: float, max_tokens: int, seed: int
    ) -> Trajectory:
        """A completion that the version has drawn. Raises as RolloutPool.generate."""
        (trajectory,), oldest = await self._generate(
            self.dispatcher, lambda version: version == self.version, prompt, frames, 1, temperature, max_tokens, seed
        )
        versions = {oldest, *(version for version, _, _ in trajectory.version_spans)}
        if versions != {self.version}:
            raise Unmeasurable(f"a completion was drawn by versions {sorted(versions)}, not by {self.version}")
        return trajectory

    async def unless_lost(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which is cancelled if the engine is given back first. Raises Unmeasurable then."""
        task = asyncio.create_task(work)
        ends: list[asyncio.Future[Any]] = [task, self._lost]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._lost.done():
                raise Unmeasurable(self._lost.result())
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
