"""Questions, images, sharing and caching of a referee's service; failures are in test_service_failures.py."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from moods import CALM, IMPATIENT, LIKELY, RED, failing, moved, never, service, some

from evidence.errors import BadInput
from evidence.types import Verdict
from referee.service.backend import Refused
from referee.service.service import ServiceConfig
from referee.verification import Wording


def test_a_verdict_is_read_from_two_answers_and_cached(verify):
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


def test_reading_and_temperature_are_applied_to_cached_answers(verify):
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
def test_another_wording_or_image_setting_does_not_hit_the_cache(verify, tmp_path, change: dict[str, Any]):
    config = replace(CALM, cache_dir=str(tmp_path))
    asyncio.run(verify(service(config=config), RED))
    same, other = service(config=config), service(config=config, **change)
    asyncio.run(verify(same, RED))
    asyncio.run(verify(other, RED))
    assert (len(same.backend.asked), len(other.backend.asked)) == (0, 2)


def test_another_referee_clip_or_question_does_not_hit_the_cache(verify, tmp_path, info):
    config = replace(CALM, cache_dir=str(tmp_path))
    asyncio.run(verify(service(config=config), RED))
    digest, setting, clip, question = (service(config=config) for _ in range(4))
    digest.backend.digest = "another"
    setting.backend.setting = "bfloat16"
    asyncio.run(verify(digest, RED))
    asyncio.run(verify(setting, RED))
    asyncio.run(verify(clip, RED, info=replace(info, key="another clip")))
    asyncio.run(verify(question, RED, question="When?"))
    assert [len(referee.backend.asked) for referee in (digest, setting, clip, question)] == [2, 2, 2, 1]


def test_concurrent_equal_questions_are_asked_once(verify):
    referee = service()
    alike = [RED, moved(box=(10.2, 9.9, 30.0, 32.1), time=3.3, phrase=" red  circle")]

    async def groups() -> list[list[Verdict | None]]:
        return await asyncio.gather(*(verify(referee, *alike) for _ in range(3)))

    answers = asyncio.run(groups())
    assert len(referee.backend.asked) == 2
    assert {verdict for group in answers for verdict in group} == {answers[0][0]}
    assert some(referee.counts, "questions", "asked", "deduplicated", "cached") == (12, 2, 10, 0)


def test_no_claims_ask_nothing(verify):
    referee = service()
    assert asyncio.run(verify(referee)) == []
    assert referee.backend.asked == []


def test_the_images_are_the_frame_with_the_box_and_the_crop(verify, frames):
    referee = service()
    asyncio.run(verify(referee, RED))
    for frame, crop in referee.backend.images:
        assert frame.shape == (56, 56, 3)
        assert crop.shape == (56, 56, 3)
        assert (frame[11:31, 11:29] == frames[3][11:31, 11:29]).all(), "the frame at the claim's time"


def test_a_referee_with_other_tiles_sees_the_frame_in_whole_tiles(verify):
    referee = service()
    referee.backend.tile = 48
    asyncio.run(verify(referee, RED))
    assert [image.shape for image, _ in referee.backend.images] == [(48, 48, 3)] * 2
    assert all((48, 48) in turn for turn in referee.backend.turns)


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
def test_impossible_settings_are_refused(key: str, value: float):
    with pytest.raises(BadInput, match=rf"^{key} = "):
        ServiceConfig(**{key: value})


def test_probabilities_are_the_answers_before_reading(run, info, frames):
    referee = service(reading="argmax")
    distributions = run(referee.probabilities("Where?", [RED, RED], info, frames))
    assert [sorted(by_kind) for by_kind in distributions] == [["localization", "relevance"]] * 2
    assert distributions[0]["relevance"] == pytest.approx(LIKELY)
    assert len(referee.backend.asked) == 2
    assert run(referee.verify("Where?", [RED], info, frames)) == [Verdict(1.0, 1.0)]
    assert len(referee.backend.asked) == 2, "cached answers are not asked again"
    assert run(service(never, IMPATIENT).probabilities("Where?", [RED], info, frames)) == [None]
