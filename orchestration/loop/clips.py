"""Completions about many clips, for evaluation: each clip's frames and prompt, one after the other, many at once.

Guarantees: what fails by a death, a delay or a lost node is repeated, up to ATTEMPTS times; a clip that cannot be read
costs itself only; the tasks of all clips have ended when `each_clip` has, however it ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import ray

from evidence.errors import UnreadableMedia
from evidence.types import Prompt, Sample, Trajectory
from orchestration.loop.pipeline import Pipeline
from orchestration.supervision.rollout_pool import RolloutPool
from orchestration.supervision.waiting import first_line
from rollout.frames.store import Lease

CLIPS_AT_ONCE = 64
ATTEMPTS = 3

log = logging.getLogger(__name__)
T = TypeVar("T")
# (prompt, frames, temperature, max_tokens, seed) -> one completion.
Complete = Callable[[Prompt, ray.ObjectRef, float, int, int], Awaitable[Trajectory]]


def on_all_engines(pool: RolloutPool) -> Complete:
    """Draws completions on every engine that holds the published weights."""

    async def complete(
        prompt: Prompt, frames: ray.ObjectRef, temperature: float, max_tokens: int, seed: int
    ) -> Trajectory:
        (trajectory,), _ = await pool.generate(
            lambda version: version == pool.published, prompt, frames, 1, temperature, max_tokens, seed
        )
        return trajectory

    return complete


async def each_clip(
    pipeline: Pipeline,
    samples: Sequence[Sample],
    attempt: Callable[[int, Sample, Lease, Prompt], Awaitable[T | None]],
    at_once: int,
) -> list[T | None]:
    """What `attempt` returns for each (number, sample, leased frames, prompt). None for clips that cannot be read, and
    for those of which no attempt returned anything."""
    gate = asyncio.Semaphore(at_once)

    async def clip(number: int, sample: Sample) -> T | None:
        for _ in range(ATTEMPTS):
            try:
                async with gate:
                    lease, prompt = await pipeline.prepare(sample)
                    with lease:
                        result = await attempt(number, sample, lease, prompt)
            except UnreadableMedia:
                return None
            except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError, TimeoutError) as error:
                # An engine that died is restarted; frames that went with their node are decoded again.
                pipeline.store.lost(error)
                log.warning("clip %s of an evaluation: %s", sample.id, first_line(error))
                continue
            if result is not None:
                return result
        return None

    tasks = [asyncio.create_task(clip(number, sample)) for number, sample in enumerate(samples)]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
