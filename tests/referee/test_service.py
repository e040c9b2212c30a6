"""The referee as a service, on a backend whose answers and moods are told by the test."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evidence.errors import BadInput
from evidence.types import Claim, FrameInfo, Verdict
from referee.backend import Refused, Unavailable
from referee.breaker import Breaker
from referee.service import RefereeService, ServiceConfig
from referee.verification import VerificationConfig, Wording

RED = Claim("red circle", (10.0, 10.0, 30.0, 32.0), 3.0, (0, 0))
CALM = ServiceConfig(deadline_s=30.0)
IMPATIENT = ServiceConfig(deadline_s=0.05)
LIKELY = (0.1, 0.2, 0.7)


class Backend:
    """Answers what `mood` returns for the texts of a turn, and keeps the turns it was asked."""

    digest = "a referee"
    setting = ""

    def __init__(self, mood: Callable[[str], Awaitable[tuple[float, ...]]]):
        self.mood = mood
        self.asked: list[str] = []
        self.images: list[list[np.ndarray]] = []
        self.given_up = 0
        self.started = False

    async def start(self) -> None:
        self.started = True

    async def choose(self, turn: Any, images: Any, n: int) -> np.ndarray:
        text = "".join(part for part in turn if isinstance(part, str))
        self.asked.append(text)
        self.images.append(list(images))
        try:
            return np.array((await self.mood(text))[:n], np.float32)
        except asyncio.CancelledError:
            self.given_up += 1
            raise

    async def stop(self) -> None: ...


async def calm(text: str) -> tuple[float, ...]:
    await asyncio.sleep(0)
    return (*LIKELY, 0.0)


def failing(times: int, error: Exception, then: tuple[float, ...] = LIKELY) -> Callable:
    """Each question fails `times` times first."""
    failed: dict[str, int] = {}

    async def mood(text: str) -> tuple[float, ...]:
        failed[text] = failed.get(text, 0) + 1
        if failed[text] <= times:
            raise error
        return then

    return mood


async def never(text: str) -> tuple[float, ...]:
    await asyncio.Event().wait()
    raise AssertionError


def service(mood: Callable = calm, config: ServiceConfig = CALM, **verification: Any) -> RefereeService:
    naps: list[float] = []

    async def sleep(seconds: float) -> None:
        naps.append(seconds)
        await asyncio.sleep(0)

    made = RefereeService(Backend(mood), VerificationConfig(**verification), config, sleep=sleep)
    made.naps = naps  # type: ignore[attr-defined]
    return made


def moved(box: Any = RED.box, time: float = 3.0, phrase: str = "red circle") -> Claim:
    return Claim(phrase, box, time, (0, 0))


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (8, 112, 112, 3), np.uint8)


@pytest.fixture
def verify(info: FrameInfo, frames: np.ndarray) -> Callable[..., Coroutine]:
    async def run(
        service: RefereeService, *claims: Claim, question: str = "Where?", info: FrameInfo = info
    ) -> list[Verdict | None]:
        answers = await service.verify(question, list(claims), info, frames)
        counts = service.counts
        ends = ("cached", "deduplicated", "asked", "breaker_open")
        assert counts["questions"] == sum(counts[name] for name in ends), "each question ends in one of them"
        return answers

    return run


def some(counts: Any, *names: str) -> tuple[int, ...]:
    return tuple(counts[name] for name in names)


def test_a_verdict_is_read_from_two_answers_and_remembered(verify):
    referee = service()
    expected = pytest.approx((0.2 + 2 * 0.7) / 2)
    for _ in range(2):
        (verdict,) = asyncio.run(verify(referee, RED))
        assert (verdict.relevance, verdict.localization, verdict.flag) == (expected, expected, None)
    assert len(referee.backend.asked) == 2
    assert some(referee.stats(), "questions", "asked", "cached", "missing", "cache_entries") == (4, 2, 2, 0, 2)
    referee.forget()
    asyncio.run(verify(referee, RED))
    assert len(referee.backend.asked) == 4


def test_reading_and_temperature_are_applied_to_what_is_remembered(verify):
    referee = service()
    asyncio.run(verify(referee, RED))
    referee.temperature = {"relevance": 0.5}
    sharp = np.array(LIKELY) ** 2 / np.sum(np.array(LIKELY) ** 2)
    (tempered,) = asyncio.run(verify(referee, RED))
    assert tempered.relevance == pytest.approx((sharp[1] + 2 * sharp[2]) / 2)
    assert tempered.localization == pytest.approx(0.8)
    referee.verification.reading = "argmax"
    (argmax,) = asyncio.run(verify(referee, RED))
    assert (argmax.relevance, argmax.localization) == (1, 1)
    assert len(referee.backend.asked) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"wording": Wording(version="2")},
        {"wording": Wording(relevance="<images>Is it {question}?", localization="<images>Is it {phrase}?")},
        {"crop_size": (84, 84)},
        {"pad_share": 0.5},
    ],
)
def test_another_way_of_asking_is_not_the_remembered_one(verify, tmp_path, change: dict[str, Any]):
    config = replace(CALM, cache_dir=str(tmp_path))
    asyncio.run(verify(service(config=config), RED))
    same, other = service(config=config), service(config=config, **change)
    asyncio.run(verify(same, RED))
    asyncio.run(verify(other, RED))
    assert (len(same.backend.asked), len(other.backend.asked)) == (0, 2)


def test_another_referee_clip_or_question_is_not_the_remembered_one(verify, tmp_path, info):
    config = replace(CALM, cache_dir=str(tmp_path))
    asyncio.run(verify(service(config=config), RED))
    digest, setting, clip, question = (service(config=config) for _ in range(4))
    digest.backend.digest = "another"
    setting.backend.setting = "bfloat16"
    asyncio.run(verify(digest, RED))
    asyncio.run(verify(setting, RED))
    asyncio.run(verify(clip, RED, info=replace(info, key="another clip")))
    asyncio.run(verify(question, RED, question="When?"))
    assert [len(one.backend.asked) for one in (digest, setting, clip, question)] == [2, 2, 2, 1]


def test_the_same_question_under_way_is_asked_once(verify):
    referee = service()
    alike = [RED, moved(box=(10.2, 9.9, 30.0, 32.1), time=3.3, phrase=" red  circle")]

    async def groups() -> list[list[Verdict | None]]:
        return await asyncio.gather(*(verify(referee, *alike) for _ in range(3)))

    answers = asyncio.run(groups())
    assert len(referee.backend.asked) == 2
    assert {verdict for group in answers for verdict in group} == {answers[0][0]}
    assert some(referee.counts, "questions", "asked", "deduplicated", "cached") == (12, 2, 10, 0)


def test_a_failure_that_passes_is_retried_with_growing_pauses(verify):
    referee = service(failing(2, Unavailable("busy")))
    random.seed(0)
    assert None not in asyncio.run(verify(referee, RED))
    assert some(referee.counts, "asked", "retried", "failed") == (2, 4, 0)
    first, second = sorted(referee.naps)[:2], sorted(referee.naps)[2:]
    assert all(0.25 <= nap <= 1.25 for nap in first)
    assert all(0.5 <= nap <= 1.5 for nap in second)
    assert len(set(referee.naps)) == 4, "with jitter: those refused together do not return together"


def test_after_the_last_attempt_the_verdict_is_missing_and_may_be_asked_again(verify):
    referee = service(failing(3, Unavailable("busy")))
    assert asyncio.run(verify(referee, RED)) == [None]
    assert some(referee.counts, "asked", "retried", "failed", "missing") == (2, 4, 2, 1)
    assert None not in asyncio.run(verify(referee, RED))


def test_what_is_refused_is_not_retried_and_harms_no_other_claim(verify):
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
    assert None not in asyncio.run(verify(referee, RED)), "and does not stay under way"


def test_the_deadline_is_each_claims_own(verify):
    async def mood(text: str) -> tuple[float, ...]:
        return await never(text) if "dog" in text else LIKELY

    referee = service(mood, IMPATIENT)
    red, dog = asyncio.run(verify(referee, RED, moved(phrase="dog")))
    assert red is not None
    assert dog is None
    assert some(referee.counts, "late", "missing", "asked") == (1, 1, 3)  # both ask the same of relevance
    assert referee.backend.given_up == 1


def test_a_question_that_others_still_wait_for_is_not_given_up(verify):
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
    assert referee.backend.given_up == 0


def test_a_question_given_up_can_be_asked_again_at_once(verify):
    async def run() -> list[Verdict | None]:
        assert await verify(referee, RED) == [None]
        referee.backend.mood = calm
        return await verify(referee, RED)

    referee = service(never, IMPATIENT)
    assert None not in asyncio.run(run())


def test_a_caller_that_leaves_is_nobodys_failure(verify):
    referee = service(never, replace(CALM, breaker_failures=1))

    async def run() -> None:
        caller = asyncio.create_task(verify(referee, RED))
        while not referee.backend.asked:
            await asyncio.sleep(0)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        await asyncio.sleep(0)

    asyncio.run(run())
    assert referee.backend.given_up == 2
    assert referee.breaker.closed


def test_a_backend_that_fails_on_and_on_is_left_alone_but_its_old_answers_are_not(verify):
    referee = service(config=replace(CALM, attempts=5, breaker_failures=4))
    clock = [0.0]
    referee.breaker = Breaker(4, 10.0, lambda: clock[0])
    asyncio.run(verify(referee, RED))
    referee.backend.mood = failing(99, Unavailable("gone"))
    blue = moved(phrase="blue square", box=(0, 0, 9, 9))
    assert asyncio.run(verify(referee, blue)) == [None]
    assert len(referee.backend.asked) == 2 + 4, "no attempt after it opened"
    assert len(referee.naps) == 3, "and no pause before none"
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


def test_a_backend_that_hangs_is_left_alone_too(verify):
    referee = service(never, replace(IMPATIENT, breaker_failures=2))
    assert asyncio.run(verify(referee, RED)) == [None]
    assert asyncio.run(verify(referee, RED)) == [None]
    assert some(referee.counts, "asked", "late", "breaker_open") == (2, 2, 2)


def test_no_claims_no_questions(verify):
    referee = service()
    assert asyncio.run(verify(referee)) == []
    assert referee.backend.asked == []


def test_images_are_the_frame_with_the_box_and_the_crop(verify, frames):
    referee = service()
    asyncio.run(verify(referee, RED))
    for frame, crop in referee.backend.images:
        assert frame.shape == (112, 112, 3)
        assert crop.shape == (56, 56, 3)
        assert (frame[11:31, 11:29] == frames[3][11:31, 11:29]).all(), "of the frame named"


def test_an_answer_is_judged_on_a_scale_of_four():
    async def mood(text: str) -> tuple[float, ...]:
        return (0.0, 0.1, 0.1, 0.8)

    async def judged(answer: str) -> float | None:
        return await referee.judge("Who?", "a cook", answer)

    referee = service(mood)
    assert asyncio.run(judged("the cook")) == pytest.approx((0.1 + 0.2 + 2.4) / 3)
    assert asyncio.run(judged("the  cook")) is not None
    assert len(referee.backend.asked) == 1
    assert referee.backend.images == [[]]
    referee.backend.mood = failing(99, Refused("no"))
    assert asyncio.run(judged("a dog")) is None
    assert some(referee.counts, "questions", "asked", "cached", "failed", "missing") == (3, 2, 1, 1, 1)


def test_a_backend_that_does_not_answer_at_the_start_is_bad_input():
    fine = service(failing(1, Unavailable("just starting")))
    asyncio.run(fine.start())
    assert fine.backend.started
    assert [image.shape for image in fine.backend.images[-1]] == [(56, 56, 3)]
    with pytest.raises(BadInput, match="the referee does not answer: no such model"):
        asyncio.run(service(failing(1, Refused("no such model"))).start())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("deadline_s", 0.0),
        ("deadline_s", float("inf")),
        ("attempts", 0),
        ("breaker_pause_s", 0.0),
        ("max_concurrent", 0),
    ],
)
def test_settings_that_cannot_be(key: str, value: float):
    with pytest.raises(BadInput, match=rf"referee\.{key} = "):
        ServiceConfig(**{key: value})


def test_probabilities_are_the_answers_before_they_are_read(run, info, frames):
    referee = service(reading="argmax")
    given = run(referee.probabilities("Where?", [RED, RED], info, frames))
    assert [sorted(said) for said in given] == [["localization", "relevance"]] * 2
    assert given[0]["relevance"] == pytest.approx(LIKELY)
    assert len(referee.backend.asked) == 2
    assert run(referee.verify("Where?", [RED], info, frames)) == [Verdict(1.0, 1.0)]
    assert len(referee.backend.asked) == 2, "what is known is not asked again"
    assert run(service(never, IMPATIENT).probabilities("Where?", [RED], info, frames)) == [None]
