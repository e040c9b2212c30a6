"""A referee behind an endpoint: its requests, the reading of its replies, and faulty replies of every kind."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import math
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from endpoint import Endpoint, Reply, answering, hanging, serving, steady
from PIL import Image

from evidence.errors import BadInput
from evidence.types import Claim, FrameInfo, Verdict
from referee.service.backend import Barred, Refused, Unavailable
from referee.service.http_backend import HttpBackend
from referee.service.service import RefereeBarred, RefereeService, ServiceConfig
from referee.service.sources import SCALE_SLOT, RefereeSource
from referee.verification import VerificationConfig

KEY = "sk-very-secret-0123"
GREY = np.full((28, 56, 3), 90, np.uint8)
TURN = ["before <|im_end|>", (56, 28), "after"]
CLAIMS = [Claim("red circle", (10.0, 10.0, 30.0 + k, 32.0), 3.0, (0, 0)) for k in range(6)]


def choose(
    reply: Reply, n: int = 3, logprobs: bool = True, turn: Any = TURN, **source: Any
) -> tuple[np.ndarray, Endpoint]:
    """The probabilities that a backend reads from an endpoint with this reply, and the endpoint."""

    async def run() -> tuple[np.ndarray, Endpoint]:
        async with serving(reply) as endpoint:
            backend = HttpBackend(RefereeSource("judge-7b", endpoint.url, **source), logprobs, 4, 5.0)
            await backend.start()
            try:
                return await backend.choose(turn, [GREY] if len(turn) == 3 else [], n), endpoint
            finally:
                await backend.stop()

    return asyncio.run(run())


def replying(status: int, body: Any) -> Reply:
    async def reply(asked: dict[str, Any]) -> tuple[int, Any]:
        return status, body

    return reply


def edited(**choice: Any) -> Reply:
    status, body = answering(0.1, 0.2, 0.7)
    body["choices"][0] |= choice
    return replying(status, body)


def test_the_request_contains_the_turn_with_its_images_and_asks_for_one_token():
    extra = {"structured_outputs": {"choice": SCALE_SLOT}, "seed": 3}
    probabilities, endpoint = choose(steady, extra_body=extra)
    assert probabilities.dtype == np.float32
    assert probabilities == pytest.approx([0.1, 0.2, 0.7])
    (body,) = endpoint.bodies
    before, image, after = body["messages"][0]["content"]
    assert (before["text"], after["text"]) == ("before ", "after"), "control tokens are removed"
    kind, _, data = image["image_url"]["url"].partition(",")
    assert kind == "data:image/png;base64"
    assert (np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) == GREY).all()
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("judge-7b", 1, 0)
    assert (body["logprobs"], body["top_logprobs"]) == (True, 20)
    assert (body["structured_outputs"], body["seed"]) == ({"choice": ["0", "1", "2"]}, 3)


def test_a_longer_scale_and_a_turn_without_images():
    probabilities, endpoint = choose(
        replying(*answering(0.1, 0.2, 0.3, 0.4)), 4, turn=["text"], extra_body={"guided_choice": SCALE_SLOT}
    )
    assert probabilities == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert endpoint.bodies[0]["guided_choice"] == ["0", "1", "2", "3"]


def test_tokens_off_the_scale_are_ignored_and_two_spellings_are_one_answer():
    probabilities, _ = choose(replying(*answering(0.2, 0.1, 0.1, 0.1, 0.5, tokens=["2", " 2", "1", "0", "The"])))
    assert probabilities == pytest.approx([0.2, 0.2, 0.6])


def test_an_unlisted_token_counts_as_0_only_if_its_probability_is_negligible():
    known, _ = choose(replying(*answering(0.899, 0.1, 0.001, tokens=["2", "1", "x"])))
    assert known == pytest.approx([0, 0.1 / 0.999, 0.899 / 0.999], abs=1e-3)
    with pytest.raises(Refused, match="0, 1, 2 are not among its 3 likeliest tokens; restrict it to them"):
        choose(replying(*answering(0.5, 0.3, 0.2, tokens=["2", "1", "x"])))
    with pytest.raises(Refused, match="not among"):
        choose(replying(*answering(0.5, 0.3, 0.2, tokens=["The", "A", "x"])))


def test_without_log_probabilities_only_the_answer_is_read():
    plain = edited(logprobs=None)
    probabilities, endpoint = choose(plain, logprobs=False)
    assert probabilities.tolist() == [0, 0, 1]
    assert "logprobs" not in endpoint.bodies[0]
    with pytest.raises(Refused, match=r"no log-probabilities; .*verification.reading=argmax"):
        choose(plain)


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (429, Unavailable, "HTTP 429"),
        (408, Unavailable, "HTTP 408"),
        (500, Unavailable, "HTTP 500"),
        (503, Unavailable, "HTTP 503"),
        (400, Refused, "HTTP 400: .*too long"),
        (401, Barred, "HTTP 401: .*judge-7b at http://"),
        (403, Barred, "HTTP 403"),
        (404, Barred, "HTTP 404"),
    ],
)
def test_http_errors_are_classified(status: int, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        choose(replying(status, {"error": {"message": "the prompt is\ntoo long", "code": status}}))


GARBAGE: dict[str, Reply] = {
    "not JSON": replying(200, "<html>busy</html>"),
    "truncated JSON": replying(200, '{"choices": [{'),
    "a list": replying(200, []),
    "no choices": replying(200, {"choices": []}),
    "null choices": replying(200, {"choices": None}),
    "a choice that is a string": replying(200, {"choices": ["2"]}),
    "no tokens": edited(logprobs={"content": []}),
    "an entry without a token": edited(logprobs={"content": [{"logprob": -1, "top_logprobs": []}]}),
    "a log-probability that is a string": edited(
        logprobs={"content": [{"token": "2", "logprob": "likely", "top_logprobs": []}]}
    ),
    "NaN": edited(logprobs={"content": [{"token": "2", "logprob": math.nan, "top_logprobs": []}]}),
    "a token that is a number": edited(logprobs={"content": [{"token": 7, "logprob": 1.0, "top_logprobs": [None]}]}),
    "a probability above 1": edited(logprobs={"content": [{"token": "2", "logprob": 3.0, "top_logprobs": []}]}),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_malformed_replies_are_not_answers(name: str):
    with pytest.raises(Unavailable, match=r"its (reply|log-prob)"):
        choose(GARBAGE[name])


@pytest.mark.parametrize("content", ["yes", "", "3", None, 2, "²"])
def test_answers_off_the_scale_are_rejected(content: Any):
    with pytest.raises(Unavailable, match=r"it answers|not in the OpenAI format"):
        choose(edited(message={"role": "assistant", "content": content}), logprobs=False)


def test_a_closed_port_is_unavailable():
    async def run() -> None:
        async with serving(steady) as endpoint:
            url = endpoint.url
        backend = HttpBackend(RefereeSource("m", url), True, 4, 5.0)
        await backend.start()
        await backend.choose(["text"], [], 3)

    with pytest.raises(Unavailable, match="onnect"):
        asyncio.run(run())


def test_the_key_is_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("JUDGE_KEY", KEY)
    _, endpoint = choose(steady, api_key_env="JUDGE_KEY")
    assert endpoint.headers[0]["Authorization"] == f"Bearer {KEY}"
    repeated = {"error": {"message": f"Incorrect API key provided: {KEY}"}}
    with pytest.raises(Refused, match=r"Incorrect API key provided: \*\*\*") as refused:
        choose(replying(401, repeated), api_key_env="JUDGE_KEY")
    assert KEY not in "".join(map(str, (refused.value, refused.value.__cause__, refused.getrepr())))
    assert KEY not in caplog.text
    assert KEY not in repr(RefereeSource("m", "http://x/v1", api_key_env="JUDGE_KEY"))


def test_no_other_key_of_the_environment_is_sent(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    _, endpoint = choose(steady)
    assert KEY not in str(endpoint.headers[0])


def test_a_key_that_is_not_set_is_bad_input(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(BadInput, match=r"api_key_env = JUDGE_KEY: that variable is not set"):
        choose(steady, api_key_env="JUDGE_KEY")


def test_digest_and_setting_cover_everything_that_could_change_an_answer():
    def identity(logprobs: bool = True, **source: Any) -> tuple[str, str]:
        backend = HttpBackend(RefereeSource(**({"model": "m", "url": "http://a/v1"} | source)), logprobs, 4, 5.0)
        return backend.digest, backend.setting

    base = identity()
    assert identity() == base
    for other in ({"url": "http://b/v1"}, {"model": "n"}, {"version": "2"}):
        assert identity(**other)[0] != base[0]
    for setting in (identity(extra_body={"seed": 1}), identity(logprobs=False)):
        assert setting[0] == base[0], "a calibration remains valid"
        assert setting[1] != base[1]


@pytest.fixture
def ask(info: FrameInfo, frames: np.ndarray) -> Callable[..., Coroutine]:
    """A function that asks a service in front of an endpoint for the verdicts on CLAIMS."""

    async def run(
        reply: Reply, config: ServiceConfig, start: bool = False, reading: str = "expected", **source: Any
    ) -> tuple[list[Verdict | None], RefereeService, Endpoint]:
        async with serving(reply) as endpoint:
            backend = HttpBackend(
                RefereeSource("m", endpoint.url, **source), reading == "expected", config.max_concurrent, 5.0
            )

            async def no_nap(seconds: float) -> None: ...

            service = RefereeService(
                backend, VerificationConfig(reading=reading, crop_size=(56, 56)), config, sleep=no_nap
            )
            await (service.start() if start else backend.start())
            try:
                return await service.verify("Where?", CLAIMS, info, frames), service, endpoint
            finally:
                await backend.stop()

    return run


def test_claims_are_verified_with_bounded_concurrency(ask):
    three = asyncio.Barrier(3)

    async def busy(body: dict[str, Any]) -> tuple[int, Any]:
        await three.wait()
        await asyncio.sleep(0.01)
        return answering(0.1, 0.2, 0.7)

    verdicts, service, endpoint = asyncio.run(ask(busy, ServiceConfig(max_concurrent=3)))
    assert {value for v in verdicts for value in (v.relevance, v.localization)} == {verdicts[0].relevance}
    assert verdicts[0].relevance == pytest.approx(0.8)
    assert endpoint.most_concurrent == 3
    assert service.counts["asked"] == len(endpoint.bodies) == 12


def test_an_endpoint_that_recovers_costs_retries_and_one_that_does_not_opens_the_breaker(ask):
    turns = iter([429, 500, 503])

    async def recovers(body: dict[str, Any]) -> tuple[int, Any]:
        return (status, {"error": {"message": "busy"}}) if (status := next(turns, 0)) else answering(0.1, 0.2, 0.7)

    verdicts, service, _ = asyncio.run(ask(recovers, ServiceConfig(max_concurrent=1, attempts=4)))
    assert None not in verdicts
    assert (service.counts["retried"], service.counts["failed"]) == (3, 0)
    verdicts, service, endpoint = asyncio.run(
        ask(replying(500, {}), ServiceConfig(max_concurrent=1, breaker_failures=5))
    )
    assert verdicts == [None] * 6
    assert not service.breaker.closed
    assert len(endpoint.bodies) < 5 + 12
    assert service.counts["missing"] == 6


@pytest.mark.parametrize("status", [401, 403, 404])
def test_an_endpoint_that_starts_rejecting_every_question_ends_the_run(ask, status: int):
    turns = iter([200])

    async def barred_soon(body: dict[str, Any]) -> tuple[int, Any]:
        return answering(0.1, 0.2, 0.7) if next(turns, 0) else (status, {"error": {"message": "key revoked"}})

    config = ServiceConfig(max_concurrent=1, breaker_failures=3)
    with pytest.raises(RefereeBarred, match=rf"rejects every question: HTTP {status}: .*key revoked.* \(m at http"):
        asyncio.run(ask(barred_soon, config))


def test_a_single_rejected_question_is_one_missing_verdict(ask):
    turns = iter([403, 200, 403])

    async def sometimes(body: dict[str, Any]) -> tuple[int, Any]:
        flagged = next(turns, 200) == 403
        return (403, {"error": {"message": "flagged"}}) if flagged else answering(0.1, 0.2, 0.7)

    verdicts, service, endpoint = asyncio.run(ask(sometimes, ServiceConfig(max_concurrent=1, breaker_failures=2)))
    assert verdicts.count(None) in (1, 2)
    assert (service.counts["failed"], service.counts["retried"], len(endpoint.bodies)) == (2, 0, 12)
    assert service.breaker.closed


def test_slow_answers_are_missing_and_the_others_are_not(ask):
    arrived = iter(range(100))

    async def first_two_hang(body: dict[str, Any]) -> tuple[int, Any]:
        return await (hanging if next(arrived) < 2 else steady)(body)

    verdicts, service, _ = asyncio.run(ask(first_two_hang, ServiceConfig(deadline_s=3.0)))
    assert verdicts.count(None) in (1, 2)
    assert service.counts["late"] == 2
    assert service.counts["missing"] == verdicts.count(None)


def test_an_endpoint_without_log_probabilities_is_refused_at_the_start_unless_read_by_argmax(ask):
    plain = edited(logprobs=None)
    with pytest.raises(BadInput, match=r"does not answer: .*no log-probabilities.*argmax"):
        asyncio.run(ask(plain, ServiceConfig(), start=True))
    verdicts, _, _ = asyncio.run(ask(plain, ServiceConfig(), start=True, reading="argmax"))
    assert verdicts == [Verdict(1.0, 1.0)] * 6


def test_a_wrong_model_name_is_bad_input_at_the_start(ask):
    with pytest.raises(BadInput, match=r"HTTP 404: .*no such model"):
        asyncio.run(ask(replying(404, {"error": {"message": "no such model"}}), ServiceConfig(), start=True))
