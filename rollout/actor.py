"""The rollout actor: one vLLM engine behind Ray, and nothing else.

Guarantees: many groups are generated at once (all methods are asynchronous); frames arrive as zero-copy views of the
object store; every wait has a timeout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import ray

from evidence.types import Prompt, Trajectory
from rollout.engine import FETCH_TIMEOUT_S, Engine, EngineConfig, WeightStore


@ray.remote
class RolloutActor:
    """`start` must have returned before any other method is called."""

    def __init__(self, config: EngineConfig, banned_ids: Sequence[int], store: WeightStore | None = None):
        self.config, self.banned_ids, self.store = config, banned_ids, store

    async def start(self, version: int = 0) -> int:
        """Load the model folder as weights `version`; takes about 20 s on a CPU. Returns the tokens that fit the KV
        cache."""
        self.engine = await Engine.start(self.config, self.banned_ids, version, self.store)
        return self.engine.kv_tokens

    async def generate(
        self,
        prompt: Prompt,
        frames: np.ndarray,
        n: int,
        temperature: float,
        max_tokens: int,
        seed: int,
        timeout_s: float,
        order: tuple[int, ...] | None = None,
    ) -> tuple[tuple[Trajectory, ...], int]:
        """`n` trajectories (see Engine.generate), and the oldest version that drew a token or computed KV of them.

        `order`: the index of the frame shown at each place, for completions on shuffled frames.
        Raises TimeoutError after `timeout_s`; the engine then drops the request.
        """
        oldest = self.engine.version
        if order is not None:
            frames = frames[list(order)]
        async with asyncio.timeout(timeout_s):
            try:
                return await self.engine.generate(prompt, frames, n, temperature, max_tokens, seed), oldest
            except Exception:
                self.engine.leave_if_dead()
                raise

    async def update_weights(self, version: int, fetch_s: float = FETCH_TIMEOUT_S) -> None:
        """As Engine.update_weights. Ends this process if the engine dies of it."""
        try:
            await self.engine.update_weights(version, fetch_s)
        except Exception:
            self.engine.leave_if_dead()
            raise

    async def ping(self) -> int:
        """The engine's weight version, once the engine's process has answered. Ends this process if that is dead."""
        try:
            await self.engine.check_health()
        except Exception:
            self.engine.leave_if_dead()
            raise
        return self.engine.version

    async def stop(self) -> None:
        await self.engine.stop()
