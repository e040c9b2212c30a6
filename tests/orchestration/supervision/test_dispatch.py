"""How groups are shared over rollout engines, on simulated fleets of engines that work at a fixed rate."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import pytest

from orchestration.supervision.dispatch import Dispatcher, EngineLoad, Request

VERSION = 1
PLACES = 12
SATURATED = 2
OVERDUE_S = 3.0


@dataclass
class Fleet:
    """Engines that load weights first, engine e until `updated[e]`, and then work off `work` (seconds of one engine).

    An engine runs up to PLACES groups. Up to SATURATED of them run at the same speed; more share its rate, so taking
    more than its share makes an engine late. dies: (engine, time of death, seconds until its successor is up to date);
    its groups start again elsewhere. rate: the speed of engine 0.
    """

    updated: Sequence[float]
    work: Sequence[float]
    dies: tuple[int, float, float] | None = None
    rate: float = 1.0
    events: list[Any] = field(default_factory=list)
    order: Any = field(default_factory=count)

    def __post_init__(self) -> None:
        self.engines = [EngineLoad(most_sequences=PLACES) for _ in self.updated]
        self.dispatcher = Dispatcher(self.engines, clock=lambda: self.now)
        self.number = {id(load): number for number, load in enumerate(self.engines)}
        self.running: list[dict[int, tuple[Request, float]]] = [{} for _ in self.engines]  # request, work left
        self.since = [0.0] * len(self.engines)
        self.plans = [0] * len(self.engines)
        self.now = 0.0
        self.left = len(self.work)

    def run(self) -> float:
        """The time at which the last group ends."""
        for engine, time in enumerate(self.updated):
            self.at(time, self.up_to_date, engine)
            self.at(OVERDUE_S, self.overdue, engine)
        if self.dies:
            self.at(self.dies[1], self.die, *self.dies)
        for group in range(len(self.work)):
            self.ask(group)
        while self.left:
            self.now, _, what, arguments = heapq.heappop(self.events)
            what(*arguments)
        return self.now

    def at(self, time: float, what: Any, *arguments: Any) -> None:
        heapq.heappush(self.events, (time, next(self.order), what, arguments))

    def ask(self, group: int) -> None:
        request = Request(lambda version: version == VERSION, 1, 0, lambda: self.started(group, request))
        self.dispatcher.add(request)

    def started(self, group: int, request: Request) -> None:
        engine = self.number[id(request.engine)]
        self.work_off(engine)
        self.running[engine][group] = request, self.work[group]
        assert len(self.running[engine]) <= PLACES
        self.plan(engine)

    def work_off(self, engine: int) -> None:
        """Bring the work left on an engine to the present."""
        rate = self.speed(engine)
        passed, self.since[engine] = self.now - self.since[engine], self.now
        for group, (request, left) in self.running[engine].items():
            self.running[engine][group] = request, left - passed * rate

    def speed(self, engine: int) -> float:
        """Work per second on each of the groups that run on an engine."""
        return (self.rate if engine == 0 else 1.0) / max(SATURATED, len(self.running[engine]))

    def plan(self, engine: int) -> None:
        """Plan the next end of a group on an engine."""
        self.plans[engine] += 1
        if self.running[engine]:
            group, left = min(((g, left) for g, (_, left) in self.running[engine].items()), key=lambda pair: pair[1])
            self.at(self.now + left / self.speed(engine), self.ended, engine, self.plans[engine], group)

    def ended(self, engine: int, plan: int, group: int) -> None:
        if plan == self.plans[engine]:
            self.work_off(engine)
            request, _ = self.running[engine].pop(group)
            self.left -= 1
            self.plan(engine)
            self.dispatcher.finished(request)
            self.dispatcher.remove(request)

    def overdue(self, engine: int) -> None:
        self.engines[engine].overdue = self.engines[engine].version != VERSION
        self.dispatcher.start_waiting()

    def up_to_date(self, engine: int) -> None:
        self.engines[engine].version, self.engines[engine].live, self.engines[engine].overdue = VERSION, True, False
        self.dispatcher.start_waiting()

    def die(self, engine: int, _: float, restart_s: float) -> None:
        self.engines[engine].live, self.engines[engine].version = False, 0
        lost, self.running[engine] = self.running[engine], {}
        self.plan(engine)
        for group, (request, _) in lost.items():
            self.dispatcher.remove(request)
            self.ask(group)
        self.at(self.now + restart_s, self.up_to_date, engine)


def best(fleet: Fleet) -> float:
    """A lower bound of the time that any assignment takes, which knows all faults and lengths beforehand: every engine
    works off groups of the mean length one by one from its update on, one that dies does nothing."""
    mean = float(np.mean(fleet.work))
    updated = [time for engine, time in enumerate(fleet.updated) if not fleet.dies or engine != fleet.dies[0]]
    ends = sorted(time + mean * n for time in updated for n in range(1, len(fleet.work) + 1))
    return ends[len(fleet.work) - 1]


def fleet_of(engines: int, groups: int, spread: float, fault: str) -> Fleet:
    """Groups of mean length 1, up to `spread` shorter or longer. slow: one engine's update takes ten times as long."""
    rng = np.random.default_rng(engines)
    updated = rng.uniform(1.0, 1.5, engines)
    if fault == "slow update":
        updated[0] = 15.0
    return Fleet(
        list(updated), list(rng.uniform(1 - spread, 1 + spread, groups)), (1, 4.0, 6.0) if fault == "death" else None
    )


def test_two_engines_share_a_step_whichever_is_updated_first() -> None:
    fleet = Fleet([1.0, 1.5], [1.0] * 8)
    assert fleet.run() == pytest.approx(best(fleet))
    assert fleet.dispatcher.take_begun() == [4, 4]
    assert fleet.dispatcher.take_begun() == [0, 0]


@pytest.mark.parametrize("fault", ["none", "slow update", "death"])
@pytest.mark.parametrize(("engines", "groups", "spread"), [(64, 2048, 0.5), (256, 2048, 0.1)])
def test_a_fleet_is_within_a_tenth_of_the_best_assignment(engines: int, groups: int, spread: float, fault: str) -> None:
    fleet = fleet_of(engines, groups, spread, fault)
    assert fleet.run() < 1.1 * best(fleet)
    begun = fleet.dispatcher.take_begun()
    busy = begun[1:] if fault == "slow update" else begun
    assert min(busy) >= 0.75 * groups / engines
    assert max(busy) <= 1.25 * groups / engines


@pytest.mark.parametrize("rate", [0.5, 0.25])
def test_a_slow_engine_gets_less_once_its_speed_is_known(rate: float) -> None:
    seconds: list[float | None] = [None] * 64
    times = []
    for _ in range(2):
        fleet = fleet_of(64, 2048, 0.1, "none")
        fleet.rate = rate
        for engine, known in zip(fleet.engines, seconds):
            engine.seconds = known
        times.append(fleet.run())
        seconds = [engine.seconds for engine in fleet.engines]
    assert times[-1] < 1.2 * best(fleet)
    begun = fleet.dispatcher.take_begun()
    assert begun[0] < (1 + rate) / 2 * min(begun[1:])


def test_engines_of_equal_speed_get_equal_shares_however_their_groups_vary() -> None:
    fleet = fleet_of(64, 2048, 0.5, "none")
    fleet.run()
    usual = sorted(e.seconds for e in fleet.engines if e.seconds is not None)[31]
    assert sum(e.seconds > 1.25 * usual for e in fleet.engines if e.seconds is not None) <= 3


def load(**most: int) -> EngineLoad:
    return EngineLoad(version=VERSION, **most)


class Asked:
    """Requests to a dispatcher, in order; `running`: the numbers of those that have started."""

    def __init__(self, *engines: EngineLoad):
        self.dispatcher, self.running = Dispatcher(engines), list[int]()
        self.requests: list[Request] = []

    def ask(self, sequences: int = 1, tokens: int = 0, version: int = VERSION) -> None:
        number = len(self.requests)
        self.requests.append(Request(lambda v: v >= version, sequences, tokens, lambda: self.running.append(number)))
        self.dispatcher.add(self.requests[-1])

    def end(self, number: int) -> None:
        self.running.remove(number)
        self.dispatcher.remove(self.requests[number])


@pytest.mark.parametrize("bound", ["most_sequences", "most_tokens"])
def test_an_engine_takes_no_more_than_it_can_run_at_once(bound: str) -> None:
    asked = Asked(load(**{bound: 10}))
    for _ in range(4):
        asked.ask(sequences=4, tokens=4)
    assert asked.running == [0, 1]
    asked.end(0)
    assert asked.running == [1, 2]


def test_an_idle_engine_takes_a_group_that_is_larger_than_its_cache() -> None:
    asked = Asked(load(most_tokens=10))
    asked.ask(tokens=50)
    asked.ask(tokens=1)
    assert asked.running == [0]
    asked.end(0)
    assert asked.running == [1]


def test_groups_start_in_the_order_of_their_requests() -> None:
    asked = Asked(load(most_sequences=4))
    for sequences in (3, 2, 1):
        asked.ask(sequences)
    assert asked.running == [0], "the third would fit, but the second came first"
    asked.end(0)
    assert asked.running == [1, 2]


def test_a_request_that_is_withdrawn_makes_room_for_the_next() -> None:
    asked = Asked(load(most_sequences=4))
    for _ in range(3):
        asked.ask(4)
    asked.dispatcher.remove(asked.requests[1])  # still waiting
    asked.end(0)
    assert asked.running == [2]


def test_a_request_that_is_withdrawn_from_the_head_lets_the_next_start() -> None:
    asked = Asked(load(most_sequences=10))
    for sequences in (4, 9, 5):
        asked.ask(sequences)
    asked.dispatcher.remove(asked.requests[1])
    assert asked.running == [0, 2]


def test_an_engine_that_is_restarted_has_no_share() -> None:
    first, second = load(), load()
    second.live = False
    asked = Asked(first, second)
    for _ in range(4):
        asked.ask()
    assert asked.running == [0, 1, 2, 3]
    assert (first.groups, second.groups) == (4, 0)


def test_no_group_starts_on_an_engine_that_is_behind() -> None:
    asked = Asked(load())
    asked.ask(version=VERSION + 1)
    assert asked.running == []
