"""A run whose referee is an HTTP endpoint that turns bad for a few steps and gets well again."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chaos_runs import Ran, run
from endpoint import Reply, hanging, serving, steady

DEADLINE_S = 3
STEPS = 3  # in each mood, and in good health after it


async def late(body: dict[str, Any]) -> tuple[int, Any]:
    await asyncio.sleep(DEADLINE_S + 1)
    return await steady(body)


async def wrong(body: dict[str, Any]) -> tuple[int, Any]:
    return 200, "no JSON at all"


async def failing(body: dict[str, Any]) -> tuple[int, Any]:
    return 500, {"error": "out of order"}


MOODS: dict[str, Reply] = {"late": late, "wrong": wrong, "failing": failing, "never": hanging}
SETTINGS = (
    f"referee.deadline_s={DEADLINE_S}",
    "referee.breaker_pause_s=2",
    "reward.max_left_out=1",
)


class _Endpoint:
    """Runs in a thread of its own; `mood` may be set from another one."""

    def __init__(self) -> None:
        self.mood: Reply = steady
        self.asked = 0
        self.url = ""

    async def reply(self, body: dict[str, Any]) -> tuple[int, Any]:
        self.asked += 1
        return await self.mood(body)

    @contextmanager
    def running(self) -> Iterator[None]:
        ready, over = threading.Event(), asyncio.Event()
        loops: list[asyncio.AbstractEventLoop] = []

        async def serve() -> None:
            loops.append(asyncio.get_running_loop())
            async with serving(self.reply) as endpoint:
                self.url = endpoint.url
                ready.set()
                await over.wait()

        # Ends with the replies that are still under way.
        thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
        thread.start()
        ready.wait()
        try:
            yield
        finally:
            loops[0].call_soon_threadsafe(over.set)
            thread.join()


def moody_run(
    folder: Path, names: Sequence[str], settings: Sequence[str]
) -> tuple[Ran, dict[str, tuple[str, dict[str, Any]]]]:
    """The run, and for each of `names` (why it was not survived or "", facts about it)."""
    endpoint = _Endpoint()
    steps: list[dict[str, Any]] = []
    changes: list[tuple[str, int, float]] = []

    def see(line: dict[str, Any]) -> None:
        steps.append(line)
        turn, within = divmod(len(steps), 2 * STEPS)
        if within == STEPS and turn < len(names):
            endpoint.mood = MOODS[names[turn]]
            changes.append((names[turn], endpoint.asked, time.time()))
        elif within == 0:
            endpoint.mood = steady

    with endpoint.running():
        referee = json.dumps({"model": "moody", "url": endpoint.url})
        total = f"steps={2 * STEPS * len(names) + STEPS}"
        ran = run(folder, (), (*settings, *SETTINGS, f"model.referee={referee}", total), see)
    outcomes = {}
    for turn, name in enumerate(names):
        through = len(steps) >= 2 * STEPS * (turn + 1)
        problem = "" if through else f"no step ended in this mood: {ran.hung or ran.last_words}"
        facts = {}
        if through:
            at = 2 * STEPS * turn + STEPS - 1
            facts = {"recovery_s": round(steps[at + 1]["time"] - steps[at]["time"], 2), "step": steps[at]["step"]}
        outcomes[name] = (problem, facts)
    return ran, outcomes
