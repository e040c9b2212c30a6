"""What rollout engines do with their time: the state of an engine, and the shares that a real pool counts."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from fake_engines import FakePool, Method, generate, hang, until

from orchestration.supervision import fleet
from orchestration.supervision.engine_times import (
    BOUND,
    BUSY,
    EVALUATION,
    FRAMES,
    RESTART,
    STATES,
    WEIGHTS,
    EngineTimes,
    state,
)
from orchestration.supervision.weight_updates import RolloutEngine


@pytest.mark.parametrize(
    ("engine", "queue", "awaiting_frames", "wanted"),
    [
        (RolloutEngine(), 0, 0, BOUND),
        (RolloutEngine(), 0, 3, FRAMES),
        (RolloutEngine(), 1, 3, WEIGHTS),
        (RolloutEngine(groups=1), 1, 3, BUSY),
        (RolloutEngine(groups=1, holds=4), 1, 0, EVALUATION),
        (RolloutEngine(live=False), 0, 0, WEIGHTS),
        (RolloutEngine(live=False, restarted=True, holds=4), 1, 3, RESTART),
    ],
)
def test_an_engine_is_in_one_state(engine: RolloutEngine, queue: int, awaiting_frames: int, wanted: str) -> None:
    assert state(engine, queue, awaiting_frames) == wanted


def test_shares_are_of_the_time_since_the_last_call_and_add_up_to_one() -> None:
    now = 10.0
    times = EngineTimes(lambda: now)
    assert times.take() == {}
    now = 20.0
    times.note([BUSY, BOUND])
    now = 23.0
    times.note([BUSY, WEIGHTS])
    now = 24.0
    assert times.take() == dict.fromkeys(STATES, 0.0) | {BUSY: 0.5, BOUND: 0.375, WEIGHTS: 0.125}
    now = 24.1
    shares = times.take()
    assert (shares[BUSY], shares[BOUND], sum(shares.values())) == (0.5, 0.0, 1.0)
    assert times.take() == {}


def test_a_pool_counts_what_its_engines_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet.ray, "kill", lambda engine: setattr(engine, "killed", True))
    now = 0.0

    async def work() -> None:
        nonlocal now
        pool = FakePool(2)
        pool._times = EngineTimes(lambda: now)
        await pool.start()

        def passed() -> dict[str, float]:
            """What the pool counts while two seconds pass."""
            nonlocal now
            now += 2.0
            shares = pool.take_times()
            assert sum(shares.values()) == 1.0
            return {name: share for name, share in shares.items() if share}

        pool.take_times()
        assert passed() == {BOUND: 1.0}
        with pool.awaiting_frames():
            assert passed() == {FRAMES: 1.0}
        assert passed() == {BOUND: 1.0}

        for engine in pool.engines:
            engine.generate = Method(hang)
        lagging = asyncio.create_task(generate(pool, 1))
        await asyncio.sleep(0)
        with pool.awaiting_frames():
            assert passed() == {WEIGHTS: 1.0}, "a group waits, for newer weights"
        pool.update(1)
        await pool.settled()
        assert passed() == {BUSY: 0.5, BOUND: 0.5}
        lagging.cancel()
        await asyncio.gather(lagging, return_exceptions=True)
        assert passed() == {BOUND: 1.0}

        aside = pool.set_aside()
        assert passed() == {EVALUATION: 0.5, BOUND: 0.5}
        pool.update(2)
        await pool.settled()
        pool.engines[0].update_weights = Method(hang)
        aside.give_back()
        assert passed() == {WEIGHTS: 0.5, BOUND: 0.5}, "it catches up"

        pool._create = lambda: SimpleNamespace(start=Method(hang), ping=Method(hang))
        pool.engines[1].dead = True
        pool.update(3)
        await until(lambda: pool.engine_facts()[1].restarts)
        assert passed() == {WEIGHTS: 0.5, RESTART: 0.5}
        pool.stop()

    asyncio.run(work())
