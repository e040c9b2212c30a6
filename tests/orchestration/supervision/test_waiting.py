"""Waiting for actors that die, hang or fail: one line names the actor and what it was doing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray

from evidence.supervision import actor_class
from orchestration.supervision.waiting import ActorLost, results

NAMES = ["learner rank 0", "learner rank 1"]


@ray.remote(num_cpus=0)
class Rank:
    def work(self, what: str, after_s: float = 0.0, dies_s: float | None = None) -> str:
        time.sleep(after_s)
        if dies_s is not None:
            threading.Timer(dies_s, os._exit, (1,)).start()
        if what == "die":
            os._exit(1)
        if what == "fail":
            raise ValueError("connection closed by peer")
        return what

    def pid(self) -> int:
        return os.getpid()


@pytest.fixture(scope="module")
def start(ray_cluster: Any) -> Iterator[Callable[[], list[Any]]]:
    """Starts two ranks, which end with the module."""
    ranks: list[Any] = []

    def start() -> list[Any]:
        pair = [actor_class(Rank).remote() for _ in NAMES]
        ranks.extend(pair)
        ray.get([rank.pid.remote() for rank in pair])
        return pair

    yield start
    for rank in ranks:
        ray.kill(rank)


@pytest.fixture(scope="module")
def pair(start: Callable[[], list[Any]]) -> list[Any]:
    return start()


def wait(ranks: list[Any], *work: tuple[Any, ...], seconds: float = 60.0) -> list[Any]:
    calls = [rank.work.remote(*args) for rank, args in zip(ranks, work)]
    return results(calls, dict(zip(NAMES, ranks)), "taking an optimizer step", seconds, "step_s")


def test_values_come_in_the_order_of_the_actors(pair: list[Any]) -> None:
    assert wait(pair, ("a", 0.3), ("b",)) == ["a", "b"]


def test_a_death_is_named_at_once_although_the_peer_waits_for_it(start: Callable[[], list[Any]]) -> None:
    pair = start()
    began = time.monotonic()
    with pytest.raises(ActorLost, match=r"^learner rank 1 died while taking an optimizer step; the logs of Ray's work"):
        wait(pair, ("a", 30.0), ("die",))
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("dying", [("die", 1.5), ("b", 0.0, 0.5)], ids=["while it works", "after its call returned"])
def test_a_death_is_named_although_the_peer_fails_of_it_first(
    start: Callable[[], list[Any]], dying: tuple[Any, ...]
) -> None:
    with pytest.raises(ActorLost, match=r"^learner rank 1 died"):
        wait(start(), ("fail", 1.0), dying)


def test_an_error_of_the_actors_own_code_is_passed_on(pair: list[Any]) -> None:
    with pytest.raises(ValueError, match="connection closed by peer"):
        wait(pair, ("fail",), ("b",))


def test_those_that_do_not_answer_are_named_with_the_limit(pair: list[Any]) -> None:
    message = r"^learner rank 1 did not answer within 0.5 s while taking an optimizer step \(limits.step_s\)$"
    with pytest.raises(ActorLost, match=message):
        wait(pair, ("a",), ("b", 5.0), seconds=0.5)
