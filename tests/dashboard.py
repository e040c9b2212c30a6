"""A server that speaks the part of the Jobs API of a Ray dashboard that Ray's own client uses here. It runs no job: a
test says how each ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from aiohttp import web


class Dashboard:
    """jobs: what was submitted, by id, with the fields of Ray's JobDetails. status: that answers every request, if not
    200, with `body`. refusal: status and body that answer a submission, whose job is taken if `takes`. output: of every
    job; None refuses to show it."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.tokens: list[str | None] = []
        self.status, self.body = 200, ""
        self.refusal: tuple[int, str] | None = None
        self.takes = False
        self.output: str | None = ""
        self.ending: dict[str, Any] = {"status": "SUCCEEDED", "driver_exit_code": 0}
        self.url = ""

    @web.middleware
    async def _checked(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.tokens.append(request.headers.get("Authorization"))
        if self.status != 200 or self.body:
            return web.Response(status=self.status, text=self.body)
        return await handler(request)

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": "4", "ray_version": ray.__version__, "ray_commit": "", "session_name": ""})

    async def _submit(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = body["submission_id"]
        if name in self.jobs:
            return web.Response(status=500, text=f"Job with submission_id {name} already exists")
        if self.refusal is None or self.takes:
            self.jobs[name] = {"type": "SUBMISSION", "submission_id": name, "status": "RUNNING", **body}
        if self.refusal is not None:
            return web.Response(status=self.refusal[0], text=self.refusal[1])
        return web.json_response({"job_id": name, "submission_id": name})

    async def _info(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["job"])
        return web.Response(status=404, text="no such job") if job is None else web.json_response(job)

    async def _tail(self, request: web.Request) -> web.WebSocketResponse:
        if self.output is None:
            raise web.HTTPServiceUnavailable
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(self.output)
        self.jobs[request.match_info["job"]] |= self.ending
        await socket.close()
        return socket

    async def _serve(self, started: threading.Event, ended: asyncio.Event) -> None:
        app = web.Application(middlewares=[self._checked])
        app.router.add_get("/api/version", self._version)
        app.router.add_post("/api/jobs/", self._submit)
        app.router.add_get("/api/jobs/{job}", self._info)
        app.router.add_get("/api/jobs/{job}/logs/tail", self._tail)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        started.set()
        await ended.wait()
        await runner.cleanup()


@contextmanager
def dashboard() -> Iterator[Dashboard]:
    server, loop = Dashboard(), asyncio.new_event_loop()
    started, ended = threading.Event(), asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(server._serve(started, ended),))
    thread.start()
    assert started.wait(30)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(30)
        loop.close()
