"""The chat format of OpenAI's interface: a question about one file from a request, and a response from answers. Pure.

Guarantees: `read_request` returns or raises Refused, whatever the bytes; every field of a request is honoured, or has
the value that changes nothing, or is refused by name.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from evidence.config_checks import MOST_SEED
from evidence.errors import BadInput
from orchestration.answering.answers import Answered
from orchestration.answering.question import require_question
from orchestration.answering.report import evidence_of

MOST_CHOICES = 128  # as in OpenAI's interface
MOST_TEMPERATURE = 2.0
# Fields that change how tokens are drawn, with the values that change nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "stream": (False,),
    "top_p": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "stop": ([],),
    "tools": ([],),
    "response_format": ({"type": "text"},),
}
REASONS = {"stream": "answers are sent whole, with their evidence"}
WITHOUT_EFFECT = ("user", "metadata", "safety_identifier")  # about the caller, not about the answer
MEDIA_PARTS = ("video_url", "image_url")
EXAMPLE = '{"type": "video_url", "video_url": {"url": "file:///…"}}'


class Refused(Exception):
    """A request that is answered by an error. `status`: of HTTP. `param`: the field at fault. `code`: for programs."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    @property
    def body(self) -> dict[str, Any]:
        """In OpenAI's shape."""
        kinds = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
        kind = kinds.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True)
class ChatRequest:
    """`url`: of the file, as the client wrote it. None where the request says nothing. `election`: a method's name."""

    question: str
    url: str
    n: int
    temperature: float | None
    max_tokens: int | None
    seed: int | None
    election: str | None


def read_request(body: bytes, model: str) -> ChatRequest:
    """Raises Refused. `model`: the name of the model that is served."""
    fields = _fields(body)
    if (wanted := fields.pop("model", model)) != model:
        raise Refused(404, f"model {wanted!r:.80}: only {model!r} is served here", "model", "model_not_found")
    question, url = _message(fields.pop("messages", None))
    limits = [_whole(fields.pop(key, None), key, 1, None) for key in ("max_tokens", "max_completion_tokens")]
    election = fields.pop("election", None)
    if election is not None and not isinstance(election, str):
        _refuse("election", election, "the name of a method, as text")
    request = ChatRequest(
        question=question,
        url=url,
        n=_whole(fields.pop("n", None), "n", 1, MOST_CHOICES) or 1,
        temperature=_temperature(fields.pop("temperature", None)),
        max_tokens=min((limit for limit in limits if limit is not None), default=None),
        seed=_whole(fields.pop("seed", None), "seed", 0, MOST_SEED),
        election=election,
    )
    if election is not None and (request.n != 1 or request.temperature is not None):
        key = "n" if request.n != 1 else "temperature"
        raise Refused(400, f"{key}: an election draws its own candidates at its own temperatures; leave it out", key)
    for key, value in fields.items():
        _require_neutral(key, value)
    return request


def _fields(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON ({str(error)[:200]})", code="invalid_json") from None
    if not isinstance(fields, dict):
        raise Refused(400, "the body must be a JSON object", code="invalid_json")
    return {key: value for key, value in fields.items() if value is not None}


def _message(messages: Any) -> tuple[str, str]:
    """(question, URL of the file) of the one message. Raises Refused."""
    if not isinstance(messages, list) or len(messages) != 1 or not isinstance(messages[0], dict):
        raise Refused(400, "messages: must be one message, of the role user; each question stands alone", "messages")
    if messages[0].get("role") != "user":
        raise Refused(400, f"messages: role = {messages[0].get('role')!r:.40}: must be 'user'", "messages")
    content = messages[0].get("content")
    if not isinstance(content, list):
        raise Refused(400, f"messages: content must be a list with the video, as {EXAMPLE}, and a text", "messages")
    texts, urls = [], []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind in MEDIA_PARTS:
            urls.append(_url(part.get(kind)))
        else:
            raise Refused(400, f"messages: a part is neither a text nor a video, as {EXAMPLE}", "messages")
    if len(urls) != 1:
        raise Refused(400, f"messages: {len(urls)} videos; give one, as {EXAMPLE}", "messages")
    question = "\n".join(texts)
    try:
        require_question(question)
    except BadInput as error:
        raise Refused(400, f"messages: {error}", "messages") from None
    return question, urls[0]


def _url(value: Any) -> str:
    url = value.get("url") if isinstance(value, dict) else value
    if not isinstance(url, str) or not url:
        raise Refused(400, f"messages: a video is written as {EXAMPLE}", "messages")
    return url


def _temperature(value: Any) -> float | None:
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value <= MOST_TEMPERATURE:
        _refuse("temperature", value, f"a number from 0 to {MOST_TEMPERATURE:g}")
    return float(value)


def _whole(value: Any, key: str, least: int, most: int | None) -> int | None:
    if value is None:
        return None
    if type(value) is not int or value < least or (most is not None and value > most):
        _refuse(key, value, f"a whole number of {least} or more" + (f", and at most {most}" if most else ""))
    return value


def _require_neutral(key: str, value: Any) -> None:
    if key in WITHOUT_EFFECT:
        return
    if key not in NEUTRAL:
        raise Refused(400, f"{key:.80}: is not supported here; leave it out", key[:80])
    if not any((value == neutral and type(value) is not bool) or value is neutral for neutral in NEUTRAL[key]):
        reason = REASONS.get(key, "the model is sampled as it was trained, from all tokens")
        raise Refused(400, f"{key}: only {json.dumps(NEUTRAL[key][0])} is supported: {reason}", key)


def _refuse(key: str, value: Any, wanted: str) -> NoReturn:
    raise Refused(400, f"{key} = {value!r:.80}: must be {wanted}", key)


def response(answered: Answered, model: str) -> dict[str, Any]:
    """The response's body: a choice for each completion, with its evidence in `message.evidence`."""
    drawn: Sequence[Any] = answered.outcome.replies if answered.outcome else answered.replies
    prompt, completion = answered.replies[0].prompt_tokens, sum(reply.tokens for reply in drawn)
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": index,
                "message": {
                    "role": "assistant",
                    "content": reply.text,
                    "refusal": None,
                    "evidence": evidence_of(answered, reply),
                },
                "logprobs": None,
                "finish_reason": reply.finish_reason,
            }
            for index, reply in enumerate(answered.replies)
        ],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        },
    }
