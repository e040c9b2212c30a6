"""The routes of the server: `/v1/chat/completions`, `/v1/models` and `/health`.

Guarantees: every error has OpenAI's shape and a reason; a request whose client has gone is cancelled, which frees its
places in the engine; without the token, where there is one, only `/health` answers; at most BODY_BYTES of a body are
read.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import secrets
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from evidence.config_checks import MOST_SEED
from evidence.errors import BadInput, RunFailed, UnreadableMedia
from evidence.plain import dumps
from orchestration.answering.answerer import Answerer, Asked
from orchestration.serving.chat import ChatRequest, Refused, read_request, response
from orchestration.serving.media import resolve
from orchestration.supervision.standalone_policy import TooLong

BODY_BYTES = 2**20  # a request names its video; it does not contain it
CLIENT_GONE = 499  # nobody reads it
log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass
class Service:
    """What the routes share. `root`: the only folder that is read, resolved. `token`: empty for none. `counts`: of
    requests that were answered, refused, failed, or abandoned by their clients."""

    answerer: Answerer
    model: str
    root: Path
    token: str = ""
    started: int = field(default_factory=lambda: int(time.time()))
    in_progress: int = 0
    counts: Counter[str] = field(default_factory=lambda: Counter(answered=0, refused=0, failed=0, abandoned=0))

    async def chat(self, request: Request) -> Response:
        self.require_token(request)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            # A form of another site, which a browser sends without asking, cannot have this type.
            raise Refused(415, "the body must have the Content-Type application/json", code="unsupported_media_type")
        chat_request = read_request(await _body(request), self.model)
        with self._counted():
            answered = await _unless_gone(request, self._answer(chat_request))
        self.counts["answered"] += 1
        return _json(answered)

    async def _answer(self, request: ChatRequest) -> dict[str, Any]:
        asked = self._asked(request)
        try:
            with await self.answerer.lease(asked) as lease:
                return response(await self.answerer.answer(asked, lease), self.model)
        except UnreadableMedia as error:
            reason = f"{request.url:.200}: cannot be read as a video or an image ({error.reason})"
            raise Refused(400, reason, "messages", "unreadable_media") from None
        except TooLong as error:
            raise Refused(400, str(error), "messages", "context_length_exceeded") from None
        except BadInput as error:
            raise Refused(400, str(error), "election") from None

    def _asked(self, request: ChatRequest) -> Asked:
        config = self.answerer.config
        temperature = config.temperature if request.temperature is None else request.temperature
        if request.n > 1 and temperature == 0:
            raise Refused(400, f"n = {request.n}: at temperature 0 all are equal; give a temperature above 0", "n")
        return Asked(
            question=request.question,
            path=resolve(request.url, self.root, config.file_gib),
            n=request.n,
            temperature=temperature,
            max_tokens=request.max_tokens,
            seed=secrets.randbelow(MOST_SEED) if request.seed is None else request.seed,
            method=request.election,
        )

    async def models(self, request: Request) -> Response:
        self.require_token(request)
        entry = {"id": self.model, "object": "model", "created": self.started, "owned_by": "ser"}
        return _json({"object": "list", "data": [entry]})

    async def health(self, request: Request) -> Response:
        """503 while no engine runs."""
        engines = self.answerer.policy.pool.engine_facts()
        running = sum(not engine.restarts for engine in engines)
        content = {
            "status": "ok" if running else "no engine runs",
            "engines": running,
            "in_progress": self.in_progress,
            "in_engines": sum(engine.groups for engine in engines),
            **self.counts,
        }
        return _json(content, 200 if running else 503)

    def require_token(self, request: Request) -> None:
        """Raises Refused without the token, which is compared in constant time."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        # Starlette decodes headers as Latin-1, whatever the client wrote.
        equal = hmac.compare_digest(given.encode("latin-1"), self.token.encode())
        if self.token and not (scheme.lower() == "bearer" and equal):
            raise Refused(401, "give the server's token: Authorization: Bearer …", code="invalid_api_key")

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self.in_progress += 1
        try:
            yield
        finally:
            self.in_progress -= 1


def make_app(service: Service) -> Starlette:
    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        service.counts["refused"] += 1
        headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
        return _json(error.body, error.status, headers)

    async def gone(request: Request, error: Exception) -> Response:
        service.counts["abandoned"] += 1
        return Response(status_code=CLIENT_GONE)

    async def failed(request: Request, error: Exception) -> Response:
        """A failure of ours, with its reason where it is one that was foreseen."""
        service.counts["failed"] += 1
        foreseen = isinstance(error, RunFailed)
        log.error("a request failed: %s", error, exc_info=None if foreseen else error)
        message = str(error) if foreseen else "an internal error; the server's log has more"
        return _json(Refused(503 if foreseen else 500, message).body, 503 if foreseen else 500)

    async def unrouted(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        message = f"{request.method} {request.url.path:.80}: {error.detail}"
        return _json(Refused(error.status_code, message).body, error.status_code)

    return Starlette(
        routes=[
            Route("/v1/chat/completions", service.chat, methods=["POST"]),
            Route("/v1/models", service.models),
            Route("/health", service.health),
        ],
        exception_handlers={
            Refused: refused,
            ClientDisconnect: gone,
            HTTPException: unrouted,
            RunFailed: failed,
            Exception: failed,
        },
    )


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(dumps(content, places=4), status, headers, "application/json")


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY_BYTES:
            raise Refused(413, f"the body has more than {BODY_BYTES:,} bytes; name the video by its path")
    return body


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. Cancels it when the client goes. Raises ClientDisconnect then."""
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, gone):
            task.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    """Return when the client has gone. The request's body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
