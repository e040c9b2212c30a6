"""Judges behind a real HTTP endpoint: replies are kept, failures counted, and nothing is made up."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from endpoint import Endpoint, Reply, serving

from evaluation.exams import VSTAR_TASKS
from evidence.errors import BadInput
from orchestration import cli
from orchestration.commands import eval_judges
from orchestration.commands.eval_judges import judge_named, replies_to
from orchestration.commands.eval_record import opened
from orchestration.commands.eval_run import data_digest
from rollout.template import PromptTemplate
from tests.evaluation.vstar.vstar_rows import row

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
    return replies_to(prompts, judge_named(endpoint.url, "judge"), folder)


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
        (["gpt"], "must be exact, the URL"),
        (["http://host/v1"], "needs --judge-model"),
        (["vllm:/nowhere"], "/nowhere is no model folder"),
        (["http://host/v1", "m", "SER_NO_SUCH_KEY"], "is not set"),
        (["exact", "m"], "--judge-model m: belongs to an endpoint"),
        (["vllm:/nowhere", "", "KEY"], "--judge-key-env KEY: belongs to an endpoint"),
    ],
)
def test_a_judge_that_cannot_be_asked_is_refused_before_anything_starts(options: list[str], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        judge_named(*options)


async def rates_guitars(body: dict[str, Any]) -> tuple[int, Any]:
    asked = body["messages"][0]["content"]
    return said("2" if "guitar" in asked.split("Candidate answer:")[1] else "0")


def printed(capsys: pytest.CaptureFixture[str], *argv: object) -> dict[str, Any]:
    assert cli.main(["eval", "vstar", *map(str, argv), "--json"]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def test_a_result_file_is_judged_where_it_has_no_ratings(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row(), row(vid="w", VQA_score=..., answer_vqa="An old guitar"), row(vid="x", VQA_score=..., answer_vqa="A")]
    results, out = tmp_path / "results.json", tmp_path / "replies"
    results.write_text(json.dumps(rows))
    endpoint = serve(rates_guitars)
    argv = ["--results", results, "--judge", endpoint.url, "--judge-model", "judge", "--out", out]
    report = printed(capsys, *argv)
    assert (report["acc"], report["counts"]["right"], report["counts"]["judged"]) == (pytest.approx(2 / 3), 2, 2)
    assert report["judge"].startswith("recorded and judge")
    assert (report["judging"]["prompts"], report["judging"]["cached"]) == (2, 0)
    assert printed(capsys, *argv)["judging"]["cached"] == 2
    assert len(endpoint.bodies) == 2
    assert printed(capsys, "--results", results)["acc"] == pytest.approx(1 / 3), "by equality"


def test_a_record_is_judged_by_an_endpoint(serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = tmp_path / "data.json", tmp_path / "record"
    data.write_text(json.dumps([{key: row()[key] for key in row() if not key.startswith(("answer_", "VQA"))}]))
    drawn = {"benchmark": "vstar", "data": data_digest(data), "template": asdict(PromptTemplate())}
    with opened(out, {"model": "m", "data": str(data), "limit": None, "drawn": drawn}) as record:
        for name in VSTAR_TASKS:
            record.add({"id": f"0/{name}", "text": "<answer>An old guitar</answer>", "frame_size": [640, 360]})
    judge = ["--judge", serve(rates_guitars).url, "--judge-model", "judge"]
    report = printed(capsys, "--rescore", out, *judge)
    assert (report["acc"], report["run"]["judge"]["prompts"]) == (1, 1)
