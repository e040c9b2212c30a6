"""What the pools say about engines and referees to a report about a stall."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from evidence.limits import Limits
from orchestration.reporting.stalls import EngineFacts, RefereeFacts
from orchestration.supervision import rollout_pool as module
from orchestration.supervision.referee_pool import Referee, RefereePool
from orchestration.supervision.rollout_pool import RolloutPool
from rollout.engine_setup import EngineConfig


class Engine:
    """Its calls return when their event is set."""

    def __init__(self) -> None:
        self.events = {name: asyncio.Event() for name in ("start", "update_weights", "generate")}
        self.events["start"].set()

    def __getattr__(self, name: str) -> Any:
        async def call(*_: Any) -> None:
            await self.events[name].wait()

        return SimpleNamespace(remote=call)


def test_engines_say_what_they_do_and_since_when(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.ray, "kill", lambda actor: None)

    async def work() -> None:
        pool = RolloutPool(EngineConfig("model"), (), None, 2, 0.0, Limits())  # type: ignore[arg-type]
        engines = [Engine(), Engine()]
        pool._create = iter(engines).__next__
        await pool.start()
        assert pool.engine_facts() == [EngineFacts(0, 0, 0), EngineFacts(1, 0, 0)]

        prompt: Any = SimpleNamespace(token_ids=range(9))
        began = asyncio.get_running_loop().time()
        frames: Any = None
        tasks = [
            asyncio.create_task(pool.generate(may_start, prompt, frames, 1, 1.0, 8, 0))
            for may_start in (lambda version: version >= 0, lambda version: version >= 1)
        ]
        await asyncio.sleep(0)
        since, number = pool.running(tasks[0]) or (0.0, -1)
        assert (since >= began, number) == (True, 0)

        pool.update(1)
        engines[1].events["update_weights"].set()
        await asyncio.sleep(0.01)
        first, second = pool.engine_facts()
        assert (first.version, first.loads, first.groups, first.since >= began) == (0, 1, 1, True)
        assert (second.version, second.loads) == (1, None)
        pool._replace(pool._engines[1], engines[1])
        assert pool.engine_facts()[1].restarts
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert pool.running(tasks[0]) is None

    asyncio.run(work())


def test_referees_are_told_apart() -> None:
    def pool(*asking: int) -> Any:
        replicas = [
            SimpleNamespace(number=number, asking=calls, supervised=SimpleNamespace(running=calls > 0))
            for number, calls in enumerate(asking)
        ]
        made = RefereePool.__new__(RefereePool)
        made._replicas = replicas  # type: ignore[assignment]
        return made

    assert Referee([pool(2)]).facts() == [RefereeFacts("referee 0", 2)]
    assert Referee([pool(2, 0), pool(1)]).facts() == [
        RefereeFacts("referee 0, actor 0", 2),
        RefereeFacts("referee 0, actor 1", 0, restarts=True),
        RefereeFacts("referee 1, actor 0", 1),
    ]
