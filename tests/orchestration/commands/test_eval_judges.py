"""Judges behind a real HTTP endpoint: replies are kept, failures counted, and nothing is made up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from endpoint import Endpoint, Reply, serving

from evidence.errors import BadInput
from orchestration.commands import eval_judges
from orchestration.commands.eval_judges import judge_named, replies_to

Serve = Callable[[Reply], Endpoint]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts an endpoint in a thread of its own, since judges run an event loop of their own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    open_servers: list[Any] = []

    def start(reply: Reply) -> Endpoint:
        server = serving(reply)
        open_servers.append(server)
        return asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result()

    yield start
    for server in open_servers:
        asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eval_judges, "FIRST_PAUSE_S", 0.01)


def judged(endpoint: Endpoint, prompts: list[str], folder: Path) -> Any:
    options = {"judge": endpoint.url, "judge_model": "judge"}
    return replies_to(prompts, judge_named(options), folder)


def said(text: str) -> tuple[int, Any]:
    return 200, {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}


def test_a_reply_is_greedy_and_asked_for_once(serve: Serve, tmp_path: Path) -> None:
    async def reply(body: dict[str, Any]) -> tuple[int, Any]:
        return said(" 3\n")

    endpoint = serve(reply)
    replies, facts = judged(endpoint, ["a", "b", "a"], tmp_path)
    assert replies == {"a": "3", "b": "3"}
    assert (facts["prompts"], facts["cached"], facts["failed"]) == (2, 0, 0)
    assert all((body["temperature"], body["model"]) == (0, "judge") for body in endpoint.bodies)
    replies, facts = judged(endpoint, ["a", "c"], tmp_path)
    assert (replies["c"], facts["cached"], len(endpoint.bodies)) == ("3", 1, 3)


def test_a_failing_endpoint_is_retried_and_what_stays_unanswered_is_counted(serve: Serve, tmp_path: Path) -> None:
    failures = {"a": 2}

    async def reply(body: dict[str, Any]) -> tuple[int, Any]:
        prompt = body["messages"][0]["content"]
        if prompt == "broken":
            return 200, "no JSON"
        if failures.get(prompt, 0):
            failures[prompt] -= 1
            return 503, {"error": {"message": "busy"}}
        return said("2")

    replies, facts = judged(serve(reply), ["a", "broken"], tmp_path)
    assert replies == {"a": "2"}
    assert facts["failed"] == 1
    assert "broken" not in (tmp_path / "judge.jsonl").read_text()


def test_a_wrong_model_or_key_ends_the_judging(serve: Serve, tmp_path: Path) -> None:
    async def reply(body: dict[str, Any]) -> tuple[int, Any]:
        return 404, {"error": {"message": "no such model"}}

    with pytest.raises(BadInput, match="no such model"):
        judged(serve(reply), ["a"], tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"judge": "gpt"}, "must be exact, the URL"),
        ({"judge": "http://host/v1"}, "needs --judge-model"),
        ({"judge": "vllm:/nowhere"}, "/nowhere is no model folder"),
        ({"judge": "http://host/v1", "judge_model": "m", "judge_key_env": "SER_NO_SUCH_KEY"}, "is not set"),
    ],
)
def test_a_judge_that_cannot_be_asked_is_refused_before_anything_starts(options: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        judge_named(options)
