"""The referee's service when its backend fails or hangs: retries, deadlines and the breaker."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest
from moods import CALM, IMPATIENT, LIKELY, RED, calm, failing, moved, never, service, some

from evidence.errors import BadInput
from evidence.types import Verdict
from referee.service.backend import Refused, Unavailable
from referee.service.breaker import Breaker


def test_temporary_failures_are_retried_with_growing_pauses(verify):
    referee = service(failing(2, Unavailable("busy")))
    random.seed(0)
    assert None not in asyncio.run(verify(referee, RED))
    assert some(referee.counts, "asked", "retried", "failed") == (2, 4, 0)
    first, second = sorted(referee.naps)[:2], sorted(referee.naps)[2:]
    assert all(0.25 <= nap <= 1.25 for nap in first)
    assert all(0.5 <= nap <= 1.5 for nap in second)
    assert len(set(referee.naps)) == 4, "jitter: simultaneous failures are not retried at the same time"


def test_after_the_last_attempt_the_verdict_is_missing_and_may_be_asked_again(verify):
    referee = service(failing(3, Unavailable("busy")))
    assert asyncio.run(verify(referee, RED)) == [None]
    assert some(referee.counts, "asked", "retried", "failed", "missing") == (2, 4, 2, 1)
    assert None not in asyncio.run(verify(referee, RED))


def test_a_refused_question_is_not_retried_and_affects_no_other_claim(verify):
    async def mood(text: str) -> tuple[float, ...]:
        if "dog" in text:
            raise Refused("too long")
        return LIKELY

    referee = service(mood)
    dog, red = asyncio.run(verify(referee, moved(phrase="dog"), RED))
    assert dog is None
    assert red is not None
    assert some(referee.counts, "retried", "failed", "missing") == (0, 1, 1)
    assert referee.breaker.closed


def test_a_defect_is_not_a_missing_verdict(verify):
    referee = service(failing(1, KeyError("prompt mismatch")))
    with pytest.raises(KeyError, match="prompt mismatch"):
        asyncio.run(verify(referee, RED))
    assert None not in asyncio.run(verify(referee, RED)), "and the failed request is not kept"


def test_the_deadline_applies_to_each_claim_separately(verify):
    async def mood(text: str) -> tuple[float, ...]:
        return await never(text) if "dog" in text else LIKELY

    referee = service(mood, IMPATIENT)
    red, dog = asyncio.run(verify(referee, RED, moved(phrase="dog")))
    assert red is not None
    assert dog is None
    assert some(referee.counts, "late", "missing", "asked") == (1, 1, 3)  # both claims share the relevance question
    assert referee.backend.cancelled == 1


def test_a_question_that_another_caller_waits_for_is_not_cancelled(verify):
    referee = service(config=IMPATIENT)

    async def run() -> tuple[list[Verdict | None], list[Verdict | None]]:
        answer = asyncio.Event()

        async def mood(text: str) -> tuple[float, ...]:
            await answer.wait()
            return LIKELY

        referee.backend.mood = mood
        early = asyncio.create_task(verify(referee, RED))
        await asyncio.sleep(0)
        referee.config = CALM
        patient = asyncio.create_task(verify(referee, RED))
        first = await early
        answer.set()
        return first, await patient

    first, second = asyncio.run(run())
    assert first == [None]
    assert None not in second
    assert some(referee.counts, "asked", "deduplicated", "late") == (2, 2, 2)
    assert referee.backend.cancelled == 0


def test_a_cancelled_question_can_be_asked_again_at_once(verify):
    async def run() -> list[Verdict | None]:
        assert await verify(referee, RED) == [None]
        referee.backend.mood = calm
        return await verify(referee, RED)

    referee = service(never, IMPATIENT)
    assert None not in asyncio.run(run())


def test_a_cancelled_caller_does_not_count_as_a_failure(verify):
    referee = service(never, replace(CALM, breaker_failures=1))

    async def run() -> None:
        caller = asyncio.create_task(verify(referee, RED))
        while not referee.backend.asked:
            await asyncio.sleep(0)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        await asyncio.sleep(0)

    asyncio.run(run())
    assert referee.backend.cancelled == 2
    assert referee.breaker.closed


def test_a_backend_that_keeps_failing_is_not_asked_but_its_cached_answers_are_used(verify):
    referee = service(config=replace(CALM, attempts=5, breaker_failures=4))
    clock = [0.0]
    referee.breaker = Breaker(4, 10.0, lambda: clock[0])
    asyncio.run(verify(referee, RED))
    referee.backend.mood = failing(99, Unavailable("gone"))
    blue = moved(phrase="blue square", box=(0, 0, 9, 9))
    assert asyncio.run(verify(referee, blue)) == [None]
    assert len(referee.backend.asked) == 2 + 4, "no attempt after the breaker opened"
    assert len(referee.naps) == 3, "and no pause for an attempt that is not made"
    known, unknown = asyncio.run(verify(referee, RED, blue))
    assert known is not None
    assert unknown is None
    assert len(referee.backend.asked) == 6
    assert some(referee.counts, "breaker_open", "failed", "missing") == (2, 2, 2)
    referee.backend.mood = calm
    clock[0] = 10.0
    assert asyncio.run(verify(referee, blue)) == [None], "one question is the probe"
    assert len(referee.backend.asked) == 7
    assert None not in asyncio.run(verify(referee, blue))


def test_a_backend_that_hangs_opens_the_breaker_too(verify):
    referee = service(never, replace(IMPATIENT, breaker_failures=2))
    assert asyncio.run(verify(referee, RED)) == [None]
    assert asyncio.run(verify(referee, RED)) == [None]
    assert some(referee.counts, "asked", "late", "breaker_open") == (2, 2, 2)


def test_a_backend_that_does_not_answer_at_the_start_is_bad_input():
    fine = service(failing(1, Unavailable("just starting")))
    asyncio.run(fine.start())
    assert fine.backend.started
    assert [image.shape for image in fine.backend.images[-1]] == [(56, 56, 3)]
    with pytest.raises(BadInput, match="the referee does not answer: no such model"):
        asyncio.run(service(failing(1, Refused("no such model"))).start())


def test_probabilities_that_are_not_finite_are_no_answer(verify):
    async def broken(text: str) -> tuple[float, ...]:
        return (float("nan"),) * 3

    referee = service(broken)
    assert asyncio.run(verify(referee, RED)) == [None]
    assert referee.stats()["failed"] == 2
