"""Rates and loads of engines, by a clock of the test's own."""

from __future__ import annotations

from typing import Any

from orchestration.reporting.loads import EngineLoads, memory
from orchestration.supervision.dispatch import Dispatcher, EngineLoad, Request


class Fleet:
    """A pool that consists of its dispatcher."""

    def __init__(self, engines: int) -> None:
        self.now = 100.0
        self.engines = [EngineLoad(most_sequences=1) for _ in range(engines)]
        self.dispatcher = Dispatcher(self.engines, clock=lambda: self.now)
        self.take_begun = self.dispatcher.take_begun

    @property
    def queue(self) -> int:
        return len(self.dispatcher.queue)

    def take_done(self) -> list[tuple[float, int]]:
        done = [(engine.busy_s, engine.drawn) for engine in self.engines]
        for engine in self.engines:
            engine.busy_s, engine.drawn = 0.0, 0
        return done

    def ask(self) -> Request:
        request = Request(lambda version: True, 1, 1, lambda: None)
        self.dispatcher.add(request)
        return request

    def end(self, request: Request, tokens: int) -> None:
        self.dispatcher.finished(request, tokens)
        self.dispatcher.remove(request)


def test_load_and_rate_are_those_since_the_last_step() -> None:
    fleet = Fleet(2)
    pool: Any = fleet
    loads = EngineLoads(pool, clock=lambda: fleet.now)
    fleet.end(fleet.ask(), 1000)  # an evaluation before training
    fleet.now += 50
    loads.begin()
    first, second, third = fleet.ask(), fleet.ask(), fleet.ask()
    fleet.now += 4
    fleet.end(first, 80)
    assert (third.engine, third.began) == (fleet.engines[0], fleet.now)
    fleet.ask()
    fleet.now += 4
    fleet.end(third, 40)
    assert loads.metrics() == {
        "engines/groups_min": 1,
        "engines/groups_max": 3,
        "engines/queue": 0,
        "rollout/tokens_per_s": 15.0,
        "engines/0/load": 1.0,
        "engines/0/tokens_per_s": 15.0,
        "engines/1/load": 0.0,
        "engines/1/tokens_per_s": 0.0,
    }
    fleet.now += 2
    fleet.end(second, 100)
    metrics = loads.metrics()
    assert (metrics["engines/1/load"], metrics["engines/1/tokens_per_s"]) == (5.0, 50.0), "10 s of a group ended in 2"


def test_memory_is_known() -> None:
    used = memory()
    assert 0 < used["memory/driver_gib"] < used["memory/host_gib"] < 10_000
