"""The routes without an engine: tokens, bodies and errors, all in OpenAI's shape."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.requests import ClientDisconnect, Request

from evidence.errors import BadInput, RunFailed, UnreadableMedia
from orchestration.answering.settings import load
from orchestration.serving.app import BODY_BYTES, Service, _unless_gone, make_app

MESSAGE = {
    "role": "user",
    "content": [{"type": "video_url", "video_url": {"url": "a.mp4"}}, {"type": "text", "text": "Where?"}],
}
BODY = {"messages": [MESSAGE]}
UNUSED = BadInput("x")


class Failing:
    """An answerer whose leases fail with `error`."""

    def __init__(self, error: Exception, engines: int = 1):
        self.error, self.config = error, load(None, ["model=m"])
        facts = [SimpleNamespace(restarts=not engines, groups=0)]
        self.policy = SimpleNamespace(pool=SimpleNamespace(engine_facts=lambda: facts))

    async def lease(self, asked: Any) -> Any:
        raise self.error


@pytest.fixture
def ask(tmp_path: Path, run: Any) -> Any:
    """Sends one request to the routes and returns the response."""
    (tmp_path / "a.mp4").write_bytes(b"video")

    def send(
        method: str, path: str, error: Exception = UNUSED, token: str = "", engines: int = 1, **options: Any
    ) -> httpx.Response:
        app = make_app(Service(Failing(error, engines), "m", tmp_path.resolve(), token))  # type: ignore[arg-type]

        async def work() -> httpx.Response:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **options)

        return run(work())

    return send


def error_of(response: httpx.Response) -> dict[str, Any]:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error


@pytest.mark.parametrize("given", [None, "Bearer", "Bearer wrong", "Basic secret", "secret", "Bearer secret2"])
def test_without_the_token_only_the_health_is_answered(ask, given):
    headers = {} if given is None else {"Authorization": given}
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/chat/completions")):
        response = ask(method, path, token="secret", headers=headers)
        assert response.status_code == 401
        assert error_of(response)["code"] == "invalid_api_key"
    assert ask("GET", "/health", token="secret", headers=headers).status_code == 200


def test_with_the_token(ask):
    response = ask("GET", "/v1/models", token="sécret", headers={"Authorization": "bearer sécret".encode()})
    assert response.json()["data"][0]["id"] == "m"


def test_other_bodies_and_routes(ask):
    path = "/v1/chat/completions"
    assert ask("POST", path, content="{}", headers={"Content-Type": "text/plain"}).status_code == 415
    large = ask("POST", path, content=b"x" * (BODY_BYTES + 1), headers={"Content-Type": "application/json"})
    assert large.status_code == 413
    bad = ask("POST", path, content=b"{", headers={"Content-Type": "application/json; charset=utf-8"})
    assert (bad.status_code, error_of(bad)["code"]) == (400, "invalid_json")
    missing, wrong = ask("GET", "/v1/files"), ask("GET", path)
    assert (missing.status_code, wrong.status_code) == (404, 405)
    assert error_of(missing)["message"].startswith("GET /v1/files: ")
    named = json.dumps(BODY | {"model": "\ud800"})  # half of a character
    surrogate = ask("POST", path, content=named, headers={"Content-Type": "application/json"})
    assert surrogate.status_code == 404


FAILURES = {
    "media": (UnreadableMedia("/root/a.mp4", "it has no video"), 400, "a.mp4: cannot be read as a video or an image"),
    "election": (BadInput("no election 'x'"), 400, "no election 'x'"),
    "engines": (RunFailed("all engines are down"), 503, "all engines are down"),
    "defect": (KeyError("secret detail"), 500, "an internal error; the server's log has more"),
}


@pytest.mark.parametrize(("error", "status", "message"), FAILURES.values(), ids=FAILURES)
def test_failures_have_a_reason_and_no_trace(ask, error, status, message):
    response = ask("POST", "/v1/chat/completions", error=error, json=BODY)
    assert response.status_code == status
    assert error_of(response)["message"].startswith(message)
    assert "/root" not in response.text


def test_several_greedy_answers_are_refused(ask):
    response = ask("POST", "/v1/chat/completions", json=BODY | {"n": 2})
    assert (response.status_code, error_of(response)["param"]) == (400, "n")


def test_the_health_of_a_server_without_engines(ask):
    response = ask("GET", "/health", engines=0)
    assert (response.status_code, response.json()["status"]) == (503, "no engine runs")


def test_the_work_for_a_client_that_has_gone_is_cancelled():
    ended = []

    async def work() -> None:
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        ended.append("to its end")

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientDisconnect):
        asyncio.run(_unless_gone(Request({"type": "http"}, receive), work()))
    assert ended == ["cancelled"]
