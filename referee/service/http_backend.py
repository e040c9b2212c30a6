"""A referee behind any OpenAI-compatible endpoint: `vllm serve`, or another one.

Guarantees: nothing is read into an answer that is not there. To read `expected` the log-probabilities of the whole
scale have to be known, or the question is refused; without them there is only the answer itself. The key goes into the
request and nowhere else: what an endpoint says is told without it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import openai
from PIL import Image

from referee.service.backend import Barred, Refused, Turn, Unavailable
from referee.service.sources import SCALE_SLOT, RefereeSource
from rollout.prompt import without_control

TOP_LOGPROBS = 20  # the most that the API allows; an endpoint that allows fewer is told so in its extra_body
# A token of the scale that is not listed is less likely than the last one that is. If that is under this share of the
# rest of the scale, it is taken for 0.
NEGLIGIBLE = 0.01
ROUNDING = 1e-3  # log-probabilities of 0 may arrive a little above it
REASON_CHARS = 300


class HttpBackend:
    """One client; at most `max_concurrent` requests are under way."""

    def __init__(self, source: RefereeSource, logprobs: bool, max_concurrent: int, timeout_s: float):
        """`logprobs`: whether the whole distribution is wanted, or only the answer. Raises BadInput without the key."""
        self.source, self.logprobs, self.timeout_s = source, logprobs, timeout_s
        self.digest = _digest([source.url, source.model, source.version])
        self.setting = _digest([logprobs, source.extra_body])
        self._key = source.api_key()
        self._gate = asyncio.Semaphore(max_concurrent)
        self._client: openai.AsyncOpenAI | None = None

    async def start(self) -> None:
        # Without a key of its own the client would send the one of OPENAI_API_KEY to whoever listens there.
        key = self._key or "none"
        self._client = openai.AsyncOpenAI(base_url=self.source.url, api_key=key, max_retries=0, timeout=self.timeout_s)

    async def choose(self, turn: Turn, images: Sequence[np.ndarray], n: int) -> np.ndarray:
        scale = [str(token) for token in range(n)]
        async with self._gate:
            content = await asyncio.to_thread(_content, turn, images)
            choice = _first_choice(await self._post(content, scale))
        if self.logprobs:
            return _from_logprobs(choice, scale)
        try:
            answer = choice["message"]["content"].strip()
        except (KeyError, TypeError, AttributeError):
            raise Unavailable("its reply is not in the OpenAI format: no choices[0].message.content") from None
        if answer not in scale:
            raise Unavailable(f"it answers {answer[:20]!r}, which is none of {', '.join(scale)}")
        return np.array([token == answer for token in scale], np.float32)

    async def stop(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def _post(self, content: list[dict[str, Any]], scale: list[str]) -> str:
        """The body of the reply. Raises Unavailable and Refused."""
        asked: dict[str, Any] = {"logprobs": True, "top_logprobs": TOP_LOGPROBS} if self.logprobs else {}
        try:
            reply = await self._client.chat.completions.with_raw_response.create(
                model=self.source.model,
                messages=[{"role": "user", "content": content}],
                max_tokens=1,
                temperature=0.0,
                extra_body=_filled(self.source.extra_body, scale),
                **asked,
            )
        except openai.APIStatusError as error:
            reason = self._told(f"HTTP {error.status_code}: {error.message}")
            if error.status_code in (408, 409, 429) or error.status_code >= 500:
                raise Unavailable(reason) from None
            if error.status_code in (401, 403, 404):
                raise Barred(f"{reason} ({self.source.model} at {self.source.url})") from None
            raise Refused(reason) from None
        except openai.APIConnectionError as error:
            raise Unavailable(self._told(f"{error} {error.__cause__ or ''}")) from None
        return reply.http_response.text

    def _told(self, reason: str) -> str:
        """What the endpoint said, in one line of bounded length, and without the key, which some repeat."""
        hidden = reason.replace(self._key, "***") if self._key else reason
        return " ".join(hidden.split())[:REASON_CHARS]


def _digest(identity: object) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def _content(turn: Turn, images: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """The turn as the API's parts. Raises ValueError if it has not as many slots as there are images."""
    slots = [part for part in turn if not isinstance(part, str)]
    shown: Iterator[dict[str, Any]] = iter(
        [{"type": "image_url", "image_url": {"url": _data_url(image)}} for _, image in zip(slots, images, strict=True)]
    )
    return [{"type": "text", "text": without_control(part)} if isinstance(part, str) else next(shown) for part in turn]


def _data_url(image: np.ndarray) -> str:
    """PNG: what the referee sees is what was drawn."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _filled(body: Any, scale: list[str]) -> Any:
    """`body` with the list of the scale's tokens in every slot for it."""
    if isinstance(body, Mapping):
        return {key: _filled(value, scale) for key, value in body.items()}
    if isinstance(body, list):
        return [_filled(value, scale) for value in body]
    return scale if body == SCALE_SLOT else body


def _first_choice(body: str) -> dict[str, Any]:
    try:
        choice = json.loads(body)["choices"][0]
    except (ValueError, KeyError, IndexError, TypeError):
        raise Unavailable("its reply is not in the OpenAI format: no choices[0]") from None
    if not isinstance(choice, dict):
        raise Unavailable("its reply is not in the OpenAI format: choices[0] is no object")
    return choice


def _from_logprobs(choice: dict[str, Any], scale: list[str]) -> np.ndarray:
    """float32 [n]: the scale's distribution, from the first token's log-probabilities."""
    if not choice.get("logprobs"):
        raise Refused("it gives no log-probabilities; use one that does, or set verification.reading=argmax")
    try:
        first = choice["logprobs"]["content"][0]
        listed = {str(entry["token"]): float(entry["logprob"]) for entry in [first, *first["top_logprobs"]]}
    except (KeyError, IndexError, TypeError, ValueError):
        raise Unavailable("its log-probabilities are not in the OpenAI format") from None
    if not all(logprob <= ROUNDING for logprob in listed.values()):  # NaN is not, either
        raise Unavailable("its log-probabilities are not numbers of 0 or less")
    # "1" and " 1" are different tokens and the same answer.
    spelt = [[math.exp(logprob) for token, logprob in listed.items() if token.strip() == wanted] for wanted in scale]
    found = np.array([sum(each) for each in spelt])
    known = found.sum()
    unlisted = 0.0 if all(spelt) else math.exp(min(listed.values()))
    if known <= 0 or unlisted > NEGLIGIBLE * known:
        raise Refused(
            f"{', '.join(scale)} are not among its {len(listed)} likeliest tokens; keep it to them, as with "
            f"model.referee.extra_body={{structured_outputs: {{choice: {SCALE_SLOT}}}}} for vllm serve"
        )
    return (found / known).astype(np.float32)
