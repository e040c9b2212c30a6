"""How fast a fleet recovers from the death of an engine: three rollout engines, one of which is killed.

The engines only wait, in this process and without Ray: each runs up to eight groups at once, which take half to one and
a half times the mean. Groups go through the real RolloutPool, as many at a time as a batch holds; those of the dead
engine are asked for again. The successor starts later than is measured, so two engines of three are left. Rates count
the groups that end in three batches' time before the death, in one after it, and in the three after that.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import ray

from evidence.limits import Limits
from evidence.types import Prompt
from orchestration.supervision.rollout_pool import RolloutPool
from rollout.engine import EngineConfig, WeightStore

ENGINES, PLACES, BATCH, BATCHES = 3, 8, 48, 3

RANDOM = random.Random(0)


class WaitingEngine:
    """Stands in for a RolloutActor. start_s: what a start takes. group_s: what a group takes on average."""

    def __init__(self, start_s: float, group_s: float):
        self.dead = asyncio.Event()
        shortest_longest = {"start": (start_s, start_s), "generate": (0.5 * group_s, 1.5 * group_s), "ping": (0, 0)}
        for name, between in shortest_longest.items():
            setattr(self, name, SimpleNamespace(remote=partial(self._wait, *between)))

    async def _wait(self, shortest: float, longest: float, *_: object) -> None:
        try:
            await asyncio.wait_for(self.dead.wait(), RANDOM.uniform(shortest, longest))
        except TimeoutError:
            return
        raise ray.exceptions.RayActorError


async def measure(group_s: float) -> dict[str, Any]:
    config = EngineConfig("none", max_num_seqs=PLACES // 2)  # the pool gives an engine twice as many sequences
    pool = RolloutPool(config, (), WeightStore("", "", ""), ENGINES, 0.0, Limits())
    pool._create = lambda: WaitingEngine(0.0, group_s)
    await pool.start()
    ended: list[float] = []
    repeated = 0

    async def groups() -> None:
        nonlocal repeated
        prompt = Prompt(*4 * [np.zeros(0, np.int32)])
        while True:
            try:
                await pool.generate(lambda version: True, prompt, None, 1, 1.0, 8, 0)  # type: ignore[arg-type]
                ended.append(time.monotonic())
            except ray.exceptions.RayActorError:
                repeated += 1

    tasks = [asyncio.create_task(groups()) for _ in range(BATCH)]
    batch_s = BATCH / (ENGINES * PLACES) * group_s
    await asyncio.sleep((1 + BATCHES) * batch_s)
    pool._create = lambda: WaitingEngine(1000 * group_s, group_s)
    death = time.monotonic()
    pool._engines[0].supervised.actor.dead.set()
    await asyncio.sleep((1 + BATCHES) * batch_s)
    for task in tasks:
        task.cancel()

    def rate(start: float, batches: int) -> float:
        return sum(start < at <= start + batches * batch_s for at in ended) / (batches * batch_s)

    before = rate(death - BATCHES * batch_s, BATCHES)
    ratios = {"first_batch": rate(death, 1) / before, "after": rate(death + batch_s, BATCHES) / before}
    sizes = {"engines": ENGINES, "batch": BATCH, "groups_per_s_before": round(before, 2), "repeated": repeated}
    return sizes | {name: round(ratio, 3) for name, ratio in ratios.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Throughput of three engines after one is killed, over that before.")
    parser.add_argument("--group-s", type=float, default=2.0, help="mean seconds of a group (default %(default)s)")
    args = parser.parse_args()
    with mock.patch("ray.kill"):
        print(json.dumps(asyncio.run(measure(args.group_s)), indent=1))


if __name__ == "__main__":
    main()
