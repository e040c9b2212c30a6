"""Pools of real referee actors that query a local endpoint: routing, deaths, hangs, ensembles."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
from endpoint import Endpoint, answering, serving, steady

from evidence.errors import BadInput, RunFailed
from evidence.limits import Limits
from evidence.types import Claim, FrameInfo
from orchestration.supervision import referee_pool as module
from orchestration.supervision.referee_pool import Referee, RefereePool
from referee.actor import RefereeConfig
from referee.service.service import ServiceConfig
from referee.service.sources import Calibration, RefereeSource
from referee.verification import VerificationConfig

pytestmark = pytest.mark.slow
RED = Claim("red circle", (10.0, 10.0, 30.0, 32.0), 3.0, (0, 0))
INFO = FrameInfo("clip 0", tuple(map(float, range(8))), (56, 56), (112, 112), 7.25)
FRAMES = np.random.default_rng(0).integers(0, 255, (8, 56, 56, 3), np.uint8)
VERIFICATION = VerificationConfig(crop_size=(56, 56))
LIMITS = Limits(start_s=300.0)
Run = Callable[..., Any]


@contextmanager
def endpoint(run: Run, reply: Any) -> Iterator[Endpoint]:
    server = serving(reply)
    yield run(server.__aenter__())
    run(server.__aexit__(None, None, None))


def config_for(server: Endpoint, **service: Any) -> RefereeConfig:
    return RefereeConfig(RefereeSource("m", server.url), VERIFICATION, ServiceConfig(**service))


@pytest.fixture(scope="module")
def steady_endpoint(ray_cluster: Any, run: Run) -> Iterator[Endpoint]:
    with endpoint(run, steady) as server:
        yield server


@pytest.fixture(scope="module")
def pair(steady_endpoint: Endpoint, run: Run) -> Iterator[RefereePool]:
    """A pool of two actors."""
    pool = RefereePool(config_for(steady_endpoint), 2, 0.0, LIMITS)
    run(pool.start())
    yield pool
    pool.stop()


def clip(number: int) -> FrameInfo:
    return replace(INFO, key=f"clip {number}")


def ask(pool: RefereePool, info: FrameInfo, claim: Claim = RED) -> Any:
    return pool.ask(info.key, "verify", "Where?", [claim], info, FRAMES)


async def settled(pool: RefereePool) -> None:
    async with asyncio.timeout(120):
        await asyncio.gather(*(replica.supervised.settled() for replica in pool._replicas))


def test_each_clip_has_one_actor_and_clips_are_spread_over_the_actors(
    pair: RefereePool, run: Run, steady_endpoint: Endpoint
) -> None:
    async def ask_twice() -> None:
        for _ in range(2):
            await asyncio.gather(*(ask(pair, clip(n)) for n in range(12)))

    before = len(steady_endpoint.bodies)
    run(ask_twice())
    assert len(steady_endpoint.bodies) - before == 24, "the second time, every answer came from the cache"
    counts = pair.counters()
    assert (counts["asked"], counts["cached"]) == (24, 24)
    assert all(replica.counts["asked"] >= 4 for replica in pair._replicas)


def test_no_actor_of_many_gets_much_more_than_its_share() -> None:
    pool = RefereePool(RefereeConfig(RefereeSource("m", "http://localhost"), VERIFICATION), 0, 0.0, LIMITS)
    pool._replicas = [module._Replica(name=f"referee {number}") for number in range(64)]
    for replica in pool._replicas:
        replica.supervised = SimpleNamespace(running=True)  # type: ignore[assignment]
    for question in range(512):
        pool._at(f"clip {question}").asking += 1
    assert max(replica.asking for replica in pool._replicas) <= 1.25 * 512 / 64 + 1


def test_while_one_actor_is_dead_the_other_answers_and_counters_survive(pair: RefereePool, run: Run) -> None:
    async def deaths() -> None:
        for replica in pair._replicas:
            ray.kill(replica.supervised.actor)
            answers = await asyncio.gather(*(ask(pair, clip(n)) for n in range(20, 32)))
            assert [None] not in answers
            await settled(pair)

    restarts, asked = pair.restarts, pair.counters()["asked"]
    run(deaths())
    assert pair.restarts == restarts + 2
    assert pair.counters()["asked"] >= asked + 24


def test_questions_wait_for_the_restart_if_no_actor_runs(steady_endpoint: Endpoint, run: Run) -> None:
    pool = RefereePool(config_for(steady_endpoint), 1, 0.0, LIMITS)

    async def death() -> list[Any]:
        await pool.start()
        ray.kill(pool._replicas[0].supervised.actor)
        return await asyncio.gather(*(ask(pool, clip(n)) for n in range(3)))

    assert [None] not in run(death())
    assert pool.restarts == 1
    pool.stop()


def test_an_actor_that_hangs_is_replaced_and_its_verdicts_are_missing(
    steady_endpoint: Endpoint, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MARGIN_S", 0.5)
    referee = Referee([pool := RefereePool(config_for(steady_endpoint, deadline_s=5.0), 1, 0.0, LIMITS)])

    async def hang() -> tuple[Any, Any, Any]:
        await referee.start()
        actor = pool._replicas[0].supervised.actor
        pid = await actor.__ray_call__.remote(lambda self: os.getpid())
        os.kill(pid, signal.SIGSTOP)
        claims = [RED, replace(RED, time=5.0)]
        missing = await referee.verify("Where?", claims, INFO, FRAMES)
        pool._timeout_s = 60.0  # the first call of the replacement also imports modules
        return missing, await referee.verify("Where?", claims, INFO, FRAMES), await referee.judge("Who?", "a", "b")

    missing, verdicts, judged = run(hang())
    assert missing == [None, None]
    assert None not in verdicts
    assert judged is not None
    assert (referee.counters()["stuck"], referee.restarts) == (1, 1)
    pool.stop()


def test_the_disagreement_of_an_ensemble_is_reported(pair: RefereePool, run: Run) -> None:
    async def other(body: dict[str, Any]) -> tuple[int, Any]:
        return answering(0.5, 0.25, 0.25)

    with endpoint(run, other) as server:
        second = RefereePool(config_for(server), 1, 0.0, LIMITS)
        run(second.start())
        referee = Referee([pair, second])
        (verdict,) = run(referee.verify("Where?", [RED], INFO, FRAMES))
        assert verdict.relevance == pytest.approx((0.8 + 0.375) / 2)
        assert verdict.disagreement == pytest.approx(0.8 - 0.375)
        assert referee.counters()["disagreement"] == pytest.approx(0.8 - 0.375)
        assert referee.counters()["missing"] == 0
        assert run(referee.verify("Where?", [], INFO, FRAMES)) == []
        run(referee.forget())
        run(referee.verify("Where?", [RED], INFO, FRAMES))
        assert second.counters()["asked"] == 4
        second.stop()


def test_a_missing_key_or_a_foreign_calibration_is_bad_input_at_the_start(steady_endpoint: Endpoint, run: Run) -> None:
    locked = RefereeConfig(RefereeSource("m", steady_endpoint.url, api_key_env="SER_TEST_NO_SUCH_KEY"), VERIFICATION)
    with pytest.raises(BadInput, match="SER_TEST_NO_SUCH_KEY: that variable is not set"):
        run(RefereePool(locked, 1, 0.0, LIMITS).start())
    foreign = replace(config_for(steady_endpoint), calibration=Calibration("c.json", "other", {}))
    with pytest.raises(BadInput, match="made for the referee other"):
        run(RefereePool(foreign, 1, 0.0, LIMITS).start())


def test_a_referee_that_dies_too_often_ends_the_run(steady_endpoint: Endpoint, run: Run) -> None:
    pool = RefereePool(config_for(steady_endpoint), 1, 0.0, replace(LIMITS, restarts_per_hour=1))

    async def deaths() -> None:
        await pool.start()
        (replica,) = pool._replicas
        ray.kill(replica.supervised.actor)
        assert await ask(pool, INFO) != [None]
        ray.kill(replica.supervised.actor)
        await ask(pool, INFO)

    message = (
        r"^referee 0 was restarted 1 times within an hour .*; last, referee 0 died while answering `verify`; the logs"
    )
    with pytest.raises(module.RefereeLost, match=message):
        run(deaths())
    pool.stop()


def test_a_referee_that_falls_silent_is_replaced_though_nothing_is_asked(steady_endpoint: Endpoint, run: Run) -> None:
    pool = RefereePool(config_for(steady_endpoint), 1, 0.0, replace(LIMITS, heartbeat_s=2.0))

    async def silence() -> list[Any]:
        await pool.start()
        (replica,) = pool._replicas
        os.kill(await replica.supervised.actor.__ray_call__.remote(lambda _: os.getpid()), signal.SIGSTOP)
        async with asyncio.timeout(120):
            while not pool.restarts:
                await asyncio.sleep(0.1)
            await replica.supervised.settled()
        return await ask(pool, INFO)

    assert run(silence()) != [None]
    assert pool.stuck == 0
    pool.stop()


def test_an_endpoint_that_refuses_every_question_ends_the_run_with_one_line(ray_cluster: Any, run: Run) -> None:
    replies = iter([answering(0.1, 0.2, 0.7)])

    async def refuses_after_one(body: dict[str, Any]) -> tuple[int, Any]:
        return next(replies, (401, {"error": {"message": "key revoked"}}))

    with endpoint(run, refuses_after_one) as server:
        pool = RefereePool(config_for(server, breaker_failures=2), 1, 0.0, LIMITS)
        run(pool.start())
        with pytest.raises(RunFailed, match="key revoked") as failed:
            run(ask(pool, INFO))
        message = str(failed.value.cause)  # printed by the command line
        assert message.startswith("the referee rejects every question: HTTP 401")
        assert "\n" not in message
        assert pool.restarts == 0
        pool.stop()
