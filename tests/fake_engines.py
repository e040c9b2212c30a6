"""Rollout pools whose engines live in this process, for tests of supervision without Ray or vLLM."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import ray

from evidence.limits import Limits
from orchestration.supervision.rollout_pool import RolloutPool
from rollout.engine import WeightsRefused
from rollout.engine_setup import EngineConfig

# What an engine draws for a group: two completions, of 5 tokens together.
DRAWN: Any = (SimpleNamespace(token_ids=range(2)), SimpleNamespace(token_ids=range(3)))


class Method:
    """A coroutine function that is called as the method of an actor."""

    def __init__(self, function: Callable[..., Coroutine[Any, Any, Any]]):
        self.remote = function


class FakeEngine:
    """`loads`: the versions that it was given. It answers until it is `dead`, and refuses the versions `refuses`."""

    def __init__(self, dead: bool = False):
        self.dead, self.killed = dead, False
        self.loads: list[int] = []
        self.refuses: set[int] = set()
        self.pings = 0
        self.start, self.update_weights = Method(self._start), Method(self._update)
        self.generate, self.ping = Method(self._generate), Method(self._ping)

    async def _start(self) -> None:
        await self._answer()

    async def _update(self, version: int, fetch_s: float) -> None:
        await self._answer()
        if version in self.refuses:
            raise WeightsRefused(f"version {version}: CorruptBucket: bucket 1")
        self.loads.append(version)

    async def _generate(self, *_: Any) -> tuple[Any, int]:
        await self._answer()
        return DRAWN, self.loads[-1] if self.loads else 0

    async def _ping(self) -> None:
        self.pings += 1
        await self._answer()

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        if self.dead:
            raise ray.exceptions.RayActorError


class FakePool(RolloutPool):
    """`size` engines, which live at first. `engines`: all that were created. `stillborn`: successors die as they
    start."""

    def __init__(self, size: int = 1, stillborn: bool = False, limits: Limits | None = None):
        super().__init__(EngineConfig("model"), (), None, size, 0.0, limits or Limits())  # type: ignore[arg-type]
        self.engines: list[FakeEngine] = []
        self.abandoned = 0

        def create() -> FakeEngine:
            self.engines.append(FakeEngine(dead=stillborn and len(self.engines) >= size))
            return self.engines[-1]

        self._create = create

    def _abandon(self, reply: Any) -> None:
        self.abandoned += 1


def generate(pool: RolloutPool, at_least: int) -> Coroutine[Any, Any, Any]:
    """A group that may start on engines of version `at_least` or newer."""
    prompt: Any = SimpleNamespace(token_ids=range(9))
    return pool.generate(lambda version: version >= at_least, prompt, None, 1, 1.0, 8, 0)  # type: ignore[arg-type]


async def hang(*_: Any) -> None:
    await asyncio.sleep(1000)


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until the condition holds. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
