"""A real HTTP server on the loopback interface that speaks the OpenAI chat format with replies chosen by a test."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

Reply = Callable[[dict[str, Any]], Awaitable[tuple[int, Any]]]


class Endpoint:
    """`reply` maps a request's JSON body to status and body; a string is sent as it is, anything else as JSON."""

    def __init__(self, reply: Reply):
        self.reply = reply
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.concurrent = self.most_concurrent = 0
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.headers.append(request.headers)
        self.bodies.append(await request.json())
        self.concurrent += 1
        self.most_concurrent = max(self.most_concurrent, self.concurrent)
        try:
            status, body = await self.reply(self.bodies[-1])
        finally:
            self.concurrent -= 1
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, content_type="application/json")


@asynccontextmanager
async def serving(reply: Reply) -> AsyncIterator[Endpoint]:
    endpoint = Endpoint(reply)
    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/chat/completions", endpoint.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    endpoint.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield endpoint
    finally:
        await runner.cleanup()


def answering(*probabilities: float, tokens: Sequence[str] = "0123") -> tuple[int, dict[str, Any]]:
    """A reply in the OpenAI format; its answer is the likeliest token."""
    listed = [
        {"token": token, "logprob": math.log(p), "bytes": list(token.encode())}
        for p, token in sorted(zip(probabilities, tokens), reverse=True)
    ]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": listed[0]["token"]},
        "logprobs": {"content": [listed[0] | {"top_logprobs": listed}]},
        "finish_reason": "length",
    }
    return 200, {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}


async def steady(body: dict[str, Any]) -> tuple[int, Any]:
    return answering(0.1, 0.2, 0.7, 1e-9)


async def hanging(body: dict[str, Any]) -> tuple[int, Any]:
    await asyncio.Event().wait()
    raise AssertionError
