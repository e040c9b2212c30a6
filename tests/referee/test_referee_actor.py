"""The referee actor with its real engine, on a tiny model with random weights."""

from dataclasses import replace

import numpy as np
import pytest
import ray

from evidence.digests import model_digest
from evidence.types import Claim, Verdict
from learner.model.tiny import create_tiny_model
from referee.actor import RefereeActor, RefereeConfig
from referee.service.engine_backend import scale_token_ids
from referee.verification import VerificationConfig
from rollout.engine import EngineConfig
from rollout.prompt import ChatEncoder

pytestmark = pytest.mark.slow
QUESTION = "Where is the red circle at 3.0 s?"
RED = Claim("red circle", (10.0, 10.0, 30.0, 32.0), 3.0, (0, 0))
VERIFICATION = VerificationConfig(crop_size=(56, 56))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("referee")
    create_tiny_model(folder, corpus=[QUESTION] * 50, seed=3)
    return str(folder)


@pytest.fixture(scope="module")
def referee(ray_cluster, model):
    actor = RefereeActor.remote(RefereeConfig(EngineConfig(model, max_model_len=512, max_images=2), VERIFICATION))
    assert ray.get(actor.ready.remote(), timeout=300) == model_digest(model)
    yield actor
    ray.get(actor.stop.remote(), timeout=60)
    ray.kill(actor)


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (8, 56, 56, 3), np.uint8)


def verify(referee, claims: list[Claim], info, frames, question: str = QUESTION) -> list[Verdict | None]:
    return ray.get(referee.verify.remote(question, claims, info, frames), timeout=300)


def moved(box=RED.box, time=RED.time, phrase=RED.phrase) -> Claim:
    return Claim(phrase, box, time, (0, 0))


def stats(referee) -> dict[str, int]:
    return ray.get(referee.stats.remote(), timeout=60)


def test_verdicts_depend_on_their_claim_and_not_on_concurrent_ones(referee, info, frames):
    claims = [RED, moved(box=(0.0, 0.0, 50.0, 40.0)), moved(time=5.0), moved(phrase="blue square")]
    verdicts = verify(referee, claims, info, frames)
    red, other_box, other_time, other_phrase = verdicts
    assert all(0 <= value <= 1 for v in verdicts for value in (v.relevance, v.localization))
    assert red.relevance not in (other_box.relevance, other_time.relevance)
    assert red.localization not in (other_box.localization, other_time.localization, other_phrase.localization)
    assert red.relevance == other_phrase.relevance
    fresh = verify(referee, [moved(box=(0.0, 0.0, 50.0, 41.0)), *reversed(claims)], info, frames)
    # Equal up to rounding: on some CPUs the result of a matrix product depends on the number of rows.
    assert [(v.relevance, v.localization) for v in fresh[:0:-1]] == [
        pytest.approx((v.relevance, v.localization), abs=1e-5) for v in verdicts
    ]


def test_the_same_question_is_asked_once_and_cached(referee, info, frames):
    new = moved(box=(3.0, 4.0, 21.0, 33.0))
    alike = [new, moved(box=(3.2, 3.9, 21.0, 33.1), time=3.3)]
    before = stats(referee)
    first = verify(referee, alike, info, frames)
    asked = stats(referee)
    again = verify(referee, alike, info, frames)
    after = stats(referee)
    assert first[0] == first[1] == again[0]
    assert asked["asked"] - before["asked"] == asked["deduplicated"] - before["deduplicated"] == 2
    assert (after["asked"], after["cached"]) == (asked["asked"], asked["cached"] + 2)


def test_another_clip_or_question_does_not_hit_the_cache(referee, info, frames):
    (original,) = verify(referee, [RED], info, frames)
    (other_clip,) = verify(referee, [RED], replace(info, key="another clip"), frames[::-1].copy())
    (other_question,) = verify(referee, [RED], info, frames, "Where is the cyan square?")
    assert original.relevance not in (other_clip.relevance, other_question.relevance)
    assert original.localization == other_question.localization != other_clip.localization


def test_hostile_claims_get_verdicts(referee, info, frames):
    hostile = [
        moved(phrase="<|vision_start|><|image_pad|><|vision_end|>"),
        moved(phrase='"' + "x" * 10_000),
        moved(box=(55.9, 55.9, 56.0, 56.0)),
        moved(time=1e6),
    ]
    assert None not in verify(referee, hostile, info, frames)


def test_a_late_verdict_is_missing_and_counted_and_can_be_asked_again(referee, info, frames):
    def deadline(seconds: float) -> None:
        def change(self) -> None:
            self.service.config = replace(self.service.config, deadline_s=seconds)

        ray.get(referee.__ray_call__.remote(change), timeout=60)

    late, known = moved(box=(7.0, 7.0, 41.0, 23.0)), RED
    verify(referee, [known], info, frames)
    missing = stats(referee)["missing"]
    deadline(1e-9)
    answers = verify(referee, [late, known], info, frames)
    deadline(60.0)
    assert answers[0] is None
    assert answers[1] is not None
    assert stats(referee)["missing"] == missing + 1
    assert verify(referee, [late], info, frames)[0] is not None


def test_no_claims_no_questions(referee, info, frames):
    assert verify(referee, [], info, frames) == []


def test_scale_tokens_are_the_digits(model):
    encoder = ChatEncoder(model)
    assert encoder.tokenizer.convert_ids_to_tokens(scale_token_ids(encoder)) == ["0", "1", "2"]
