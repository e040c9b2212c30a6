"""The circuit breaker, by a clock of its own."""

import pytest

from referee.service.breaker import Breaker


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(failures=3, pause_s=10, clock=clock)


def opened(breaker: Breaker) -> Breaker:
    for _ in range(3):
        breaker.failed()
    return breaker


def test_only_failures_in_a_row_open_it(breaker: Breaker):
    for failed in (True, True, False, True, True):
        assert breaker.allows()
        (breaker.failed if failed else breaker.succeeded)()
    assert breaker.allows()
    breaker.failed()
    assert not breaker.allows()


def test_after_a_pause_one_is_let_through(breaker: Breaker, clock: Clock):
    opened(breaker)
    clock.now = 9.9
    assert not breaker.allows()
    clock.now = 10
    assert [breaker.allows() for _ in range(3)] == [True, False, False]
    assert not breaker.closed


def test_a_probe_that_fails_costs_another_pause_and_one_that_succeeds_closes(breaker: Breaker, clock: Clock):
    opened(breaker)
    clock.now = 10
    assert breaker.allows()
    clock.now = 12
    breaker.failed()
    clock.now = 21.9
    assert not breaker.allows()
    clock.now = 22
    assert breaker.allows()
    breaker.succeeded()
    assert [breaker.allows() for _ in range(3)] == [True, True, True]


def test_a_probe_that_is_never_heard_of_does_not_keep_it_open_for_ever(breaker: Breaker, clock: Clock):
    opened(breaker)
    clock.now = 10
    assert breaker.allows()
    clock.now = 20
    assert breaker.allows()
