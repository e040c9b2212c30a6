"""The circuit breaker, with a fake clock."""

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


def test_only_consecutive_failures_open_it(breaker: Breaker):
    for failed in (True, True, False, True, True):
        assert breaker.allows()
        (breaker.failed if failed else breaker.succeeded)()
    assert breaker.allows()
    breaker.failed()
    assert not breaker.allows()


def test_one_probe_is_allowed_after_a_pause(breaker: Breaker, clock: Clock):
    opened(breaker)
    clock.now = 9.9
    assert not breaker.allows()
    clock.now = 10
    assert [breaker.allows() for _ in range(3)] == [True, False, False]
    assert not breaker.closed


def test_a_failed_probe_starts_another_pause_and_a_successful_one_closes(breaker: Breaker, clock: Clock):
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


def test_a_probe_without_an_outcome_does_not_keep_it_open_for_ever(breaker: Breaker, clock: Clock):
    opened(breaker)
    clock.now = 10
    assert breaker.allows()
    clock.now = 19.9
    assert not breaker.allows()
    clock.now = 20
    assert breaker.allows()


def test_a_breaker_that_bears_no_failure_probes_from_the_start(clock: Clock):
    breaker = Breaker(failures=0, pause_s=10, clock=clock)
    assert [breaker.closed, breaker.allows(), breaker.allows()] == [False, True, False]
