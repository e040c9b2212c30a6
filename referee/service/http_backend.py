"""A referee behind any OpenAI-compatible endpoint: `vllm serve`, or another one.

Guarantees: probabilities are never guessed. The reading `expected` needs the log-probabilities of the whole scale, or
the question is refused; the reading `argmax` uses only the answer itself. The key is sent with the request and appears
nowhere else: it is removed from an endpoint's error messages.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import openai
from openai.types.chat import ChatCompletionContentPartParam
from PIL import Image

from referee.service.backend import Barred, Refused, Turn, Unavailable
from referee.service.sources import SCALE_SLOT, RefereeSource
from rollout.prompt import without_control

TOP_LOGPROBS = 20  # the API's maximum; for an endpoint that allows fewer, set top_logprobs in its extra_body
# An unlisted token of the scale is less likely than the least likely listed token. If even that is below this share of
# the rest of the scale, the unlisted token counts as 0.
NEGLIGIBLE = 0.01
ROUNDING = 1e-3  # log-probabilities of 0 may arrive slightly above 0
REASON_CHARS = 300


class HttpBackend:
    """One client with at most `max_concurrent` concurrent requests."""

    tile = 1  # of a model that cannot be seen from here: frames are sent as they are

    def __init__(self, source: RefereeSource, logprobs: bool, max_concurrent: int, timeout_s: float):
        """`logprobs`: whether to read the whole distribution or only the answer. `timeout_s`: of one request.

        Raises BadInput if the source's key is not set.
        """
        self.source, self.logprobs, self.timeout_s = source, logprobs, timeout_s
        self.digest = _digest([source.url, source.model, source.version])
        self.setting = _digest([logprobs, source.extra_body])
        self._key = source.api_key()
        self._gate = asyncio.Semaphore(max_concurrent)
        self._client: openai.AsyncOpenAI | None = None

    async def start(self) -> None:
        # Without an explicit key the client would send the value of OPENAI_API_KEY to the endpoint.
        key = self._key or "none"
        self._client = openai.AsyncOpenAI(base_url=self.source.url, api_key=key, max_retries=0, timeout=self.timeout_s)

    async def choose(self, turn: Turn, images: Sequence[np.ndarray], n: int) -> np.ndarray:
        scale = [str(token) for token in range(n)]
        async with self._gate:
            content = await asyncio.to_thread(_content, turn, images)
            choice = first_choice(await self._post(content, scale))
        if self.logprobs:
            return _from_logprobs(choice, scale)
        try:
            answer = choice["message"]["content"].strip()
        except (KeyError, TypeError, AttributeError):
            raise Unavailable("its reply is not in the OpenAI format: no choices[0].message.content") from None
        if answer not in scale:
            raise Unavailable(f"it answers {answer[:20]!r}, which is not one of {', '.join(scale)}")
        return np.array([token == answer for token in scale], np.float32)

    async def stop(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def _post(self, content: list[ChatCompletionContentPartParam], scale: list[str]) -> str:
        """The body of the reply. Raises Unavailable and Refused."""
        if self._client is None:
            raise RuntimeError("the client has not been started")
        logprobs: dict[str, Any] = {"logprobs": True, "top_logprobs": TOP_LOGPROBS} if self.logprobs else {}
        try:
            reply = await self._client.chat.completions.with_raw_response.create(
                model=self.source.model,
                messages=[{"role": "user", "content": content}],
                max_tokens=1,
                temperature=0.0,
                extra_body=_filled(self.source.extra_body, scale),
                **logprobs,
            )
        except (openai.APIStatusError, openai.APIConnectionError) as error:
            raise backend_error(error, self.source, self._key) from None
        return reply.http_response.text


def backend_error(
    error: openai.APIStatusError | openai.APIConnectionError, source: RefereeSource, key: str
) -> Unavailable | Refused:
    """A client's error as one of the errors of a backend. Its message is one line of bounded length, without the key,
    which some endpoints repeat."""

    def reason(message: str) -> str:
        return " ".join((message.replace(key, "***") if key else message).split())[:REASON_CHARS]

    if isinstance(error, openai.APIConnectionError):
        return Unavailable(reason(f"{error} {error.__cause__ or ''}"))
    status = reason(f"HTTP {error.status_code}: {error.message}")
    if error.status_code in (408, 409, 429) or error.status_code >= 500:
        return Unavailable(status)
    return Barred(f"{status} ({source.name})") if error.status_code in (401, 403, 404) else Refused(status)


def _digest(identity: object) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def _content(turn: Turn, images: Sequence[np.ndarray]) -> list[ChatCompletionContentPartParam]:
    """The turn as the API's content parts. Raises ValueError unless there is one image for each slot."""
    slots = [part for part in turn if not isinstance(part, str)]
    urls = iter([_data_url(image) for _, image in zip(slots, images, strict=True)])
    return [
        {"type": "text", "text": without_control(part)}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": next(urls)}}
        for part in turn
    ]


def _data_url(image: np.ndarray) -> str:
    """The image as a PNG data URL; lossless, so that the referee sees exactly the drawn pixels."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _filled(body: Any, scale: list[str]) -> Any:
    """`body` with every SCALE_SLOT replaced by the list of the scale's tokens."""
    if isinstance(body, Mapping):
        return {key: _filled(value, scale) for key, value in body.items()}
    if isinstance(body, list):
        return [_filled(value, scale) for value in body]
    return scale if body == SCALE_SLOT else body


def first_choice(body: str) -> dict[str, Any]:
    """The first choice of a reply. Raises Unavailable if the reply is not in the OpenAI format."""
    try:
        choice = json.loads(body)["choices"][0]
    except (ValueError, KeyError, IndexError, TypeError):
        raise Unavailable("its reply is not in the OpenAI format: no choices[0]") from None
    if not isinstance(choice, dict):
        raise Unavailable("its reply is not in the OpenAI format: choices[0] is not an object")
    return choice


def _from_logprobs(choice: dict[str, Any], scale: list[str]) -> np.ndarray:
    """float32 [n]: the scale's distribution, from the first token's log-probabilities."""
    if not choice.get("logprobs"):
        raise Refused("it returns no log-probabilities; use an endpoint that does, or set verification.reading=argmax")
    try:
        first = choice["logprobs"]["content"][0]
        listed = {str(entry["token"]): float(entry["logprob"]) for entry in [first, *first["top_logprobs"]]}
    except (KeyError, IndexError, TypeError, ValueError):
        raise Unavailable("its log-probabilities are not in the OpenAI format") from None
    if not all(logprob <= ROUNDING for logprob in listed.values()):  # false for NaN too
        raise Unavailable("its log-probabilities are not numbers of 0 or less")
    # "1" and " 1" are different tokens but the same answer.
    spellings = [[math.exp(logprob) for token, logprob in listed.items() if token.strip() == digit] for digit in scale]
    probabilities = np.array([sum(spelling) for spelling in spellings])
    total = probabilities.sum()
    unlisted = 0.0 if all(spellings) else math.exp(min(listed.values()))
    if total <= 0 or unlisted > NEGLIGIBLE * total:
        raise Refused(
            f"{', '.join(scale)} are not among its {len(listed)} likeliest tokens; restrict it to them, as with "
            f"model.referee.extra_body={{structured_outputs: {{choice: {SCALE_SLOT}}}}} for vllm serve"
        )
    return (probabilities / total).astype(np.float32)
