"""What the pools say about engines and referees to a report about a stall."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from fake_engines import FakePool, Method, generate, hang, until

from orchestration.reporting.stalls import EngineFacts, RefereeFacts
from orchestration.supervision import fleet
from orchestration.supervision.referee_pool import Referee, RefereePool


def test_engines_say_what_they_do_and_since_when(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet.ray, "kill", lambda engine: setattr(engine, "killed", True))

    async def work() -> None:
        pool, clock = FakePool(2), asyncio.get_running_loop().time
        await pool.start()
        assert pool.engine_facts() == [EngineFacts(f"rollout engine {number}", 0, 0) for number in range(2)]

        for engine in pool.engines:
            engine.generate = Method(hang)
        began = clock()
        running, waiting = asyncio.create_task(generate(pool, 0)), asyncio.create_task(generate(pool, 2))
        await asyncio.sleep(0)
        since, engine_name = pool.running(running) or (0.0, "")
        assert (since >= began, engine_name) == (True, "rollout engine 0")
        assert pool.running(waiting) is None

        pool.engines[0].update_weights = Method(hang)
        pool.update(1)
        await until(lambda: pool.engine_facts()[1].version == 1)
        first, second = pool.engine_facts()
        assert (first.version, first.loads, first.groups, first.since >= began) == (0, 1, 1, True)
        assert (second.loads, second.restarts) == (None, False)

        before = clock()
        pool.engines[1].dead = True
        pool._create = lambda: SimpleNamespace(start=Method(hang), ping=Method(hang))
        pool.update(2)
        await until(lambda: pool.engine_facts()[1].restarts)
        assert pool.engine_facts()[1].since >= before
        for task in (running, waiting):
            task.cancel()
        await asyncio.gather(running, waiting, return_exceptions=True)
        assert pool.running(running) is None
        pool.stop()

    asyncio.run(work())


def test_referees_are_told_apart() -> None:
    def pool(*asking: int) -> Any:
        made = RefereePool.__new__(RefereePool)
        replicas: Any = [
            SimpleNamespace(name=f"referee {number}", asking=calls, running=calls > 0)
            for number, calls in enumerate(asking)
        ]
        made._replicas = replicas
        return made

    assert Referee([pool(2)]).facts() == [RefereeFacts("referee 0", 2)]
    assert Referee([pool(2, 0), pool(1)]).facts() == [
        RefereeFacts("referee 0 of ensemble member 0", 2),
        RefereeFacts("referee 1 of ensemble member 0", 0, restarts=True),
        RefereeFacts("referee 0 of ensemble member 1", 1),
    ]
