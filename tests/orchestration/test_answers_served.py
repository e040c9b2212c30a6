"""`ser answer` and `ser serve` with the embedded policy: one engine, OpenAI's client, and a referee over HTTP."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import endpoint
import httpx
import openai
import pytest
import uvicorn
from serving import ROOT, SETTINGS

from evidence.errors import BadInput
from evidence.grammar import parse
from orchestration.answering.answerer import Answerer, Asked, check_answering, running_answerer
from orchestration.answering.page import Source, page
from orchestration.answering.settings import load
from orchestration.commands.answer import answer_with_frames
from orchestration.serving.app import Service, make_app
from orchestration.serving.server import Address
from rollout.dataset import read_dataset
from rollout.dataset.shapes import make_shapes

pytestmark = pytest.mark.slow
SPARSE = ["first_frames=2", "most_frames=8", "per_round=2"]
ELECTIONS = ["election.perturb.crop=0.2", "election.perturb.shuffle=true", "election.perturb.frames=[4]"]
LIMIT_S = 120


@dataclass
class Served:
    """The running server. `run` runs a coroutine in its event loop."""

    answerer: Answerer
    loop: asyncio.AbstractEventLoop
    url: str

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(LIMIT_S)

    def health(self) -> dict[str, Any]:
        return httpx.get(f"{self.url}/health", timeout=LIMIT_S).json()


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    make_shapes(root / "shapes", train=0, val=0, test=2, workers=1)
    (root / "empty.mp4").touch()
    (root / "text.mp4").write_text("not a video")
    return root


@pytest.fixture(scope="module")
def served(ray_cluster: Any, shapes: Path) -> Iterator[Served]:
    """The server in a thread of its own, as `ser serve` runs it but for the signals."""
    started: concurrent.futures.Future[Served] = concurrent.futures.Future()
    ended = asyncio.Event()

    async def work() -> None:
        async with endpoint.serving(endpoint.steady) as referee:
            overrides = [f"model={ROOT / 'assets/policy'}", *SETTINGS, *ELECTIONS, "engine.max_num_seqs=16"]
            overrides += [f"election.sparse_to_dense.{setting}" for setting in SPARSE]
            overrides += [f"judge={{model: m, url: '{referee.url}'}}"]
            config, encoder = check_answering(load(ROOT / "tests/orchestration/serving.yaml", overrides))
            async with running_answerer(config, encoder) as answerer:
                bound = Address("127.0.0.1", 0).bind()
                app = make_app(Service(answerer, "policy", shapes.resolve()))
                server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
                serving = asyncio.create_task(server.serve([bound]))
                url = f"http://127.0.0.1:{bound.getsockname()[1]}"
                async with asyncio.timeout(LIMIT_S):
                    while not server.started:  # before, connections are refused
                        await asyncio.sleep(0.01)
                started.set_result(Served(answerer, asyncio.get_running_loop(), url))
                await ended.wait()
                server.should_exit = True
                await serving
                answerer.policy.pool.stop()

    def in_thread() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            raise

    thread = threading.Thread(target=in_thread)
    thread.start()
    running = started.result(300)
    yield running
    running.loop.call_soon_threadsafe(ended.set)
    thread.join(60)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def asked(shapes: Path) -> tuple[str, str]:
    """(path of a clip, below the root; a question about it)."""
    sample = next(iter(read_dataset(shapes / "shapes/test.json")))
    return str(Path(sample.media_path).relative_to(shapes)), sample.question


@pytest.fixture(scope="module")
def ask(served: Served, asked: tuple[str, str]) -> Any:
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=LIMIT_S)

    def send(url: str = asked[0], question: str = asked[1], **fields: Any) -> Any:
        parts: Any = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": question}]
        return client.chat.completions.create(model="policy", messages=[{"role": "user", "content": parts}], **fields)

    send.client = client  # type: ignore[attr-defined]
    return send


def test_an_answer_has_its_evidence_with_verdicts(ask: Any, asked: tuple[str, str], shapes: Path) -> None:
    assert [model.id for model in ask.client.models.list()] == ["policy"]
    completion = ask(url=f"file://{shapes}/{asked[0]}")
    (choice,) = completion.choices
    parsed, evidence = parse(choice.message.content), choice.message.evidence
    assert choice.finish_reason == "stop"
    assert evidence["answer"] == parsed.answer
    assert [claim["phrase"] for claim in evidence["claims"]] == [claim.phrase for claim in parsed.claims]
    assert len(evidence["frames"]["times"]) == 8
    assert [claim["relevance"] for claim in evidence["claims"]] == pytest.approx([0.8] * len(parsed.claims), abs=0.01)
    assert completion.usage.completion_tokens > 10


def test_equal_seeds_give_equal_answers(ask: Any) -> None:
    first, second, other = (ask(n=6, temperature=1.0, seed=seed, max_tokens=40) for seed in (3, 3, 4))
    texts = [[choice.message.content for choice in completion.choices] for completion in (first, second, other)]
    assert texts[0] == texts[1] != texts[2]
    assert len(texts[0]) == 6
    assert ask(max_tokens=3).choices[0].finish_reason == "length"


@pytest.mark.parametrize("method", ["rler", "majority", "open_o3", "self_certainty", "sparse_to_dense"])
def test_every_election(ask: Any, method: str) -> None:
    message = ask(extra_body={"election": method}, seed=1).choices[0].message
    election = message.evidence["election"]
    assert election["method"] == method
    assert election["candidates"][election["winner"]]["text"] == message.content
    assert election["votes"][0]["answer"] in election["reason"]
    inputs = [candidate["input"] for candidate in election["candidates"]]
    assert inputs[0] == "as it is"
    if method == "majority":
        assert inputs[1:4] == ["lighter", "darker", "top left crop"]
    assert (election["sufficiency"] is None) == (method != "rler")


def test_many_clients_at_once(ask: Any) -> None:
    with concurrent.futures.ThreadPoolExecutor(32) as clients:
        completions = list(clients.map(lambda seed: ask(temperature=1.0, seed=seed), range(32)))
    assert all(completion.choices[0].message.evidence["frames"] for completion in completions)
    assert len({completion.choices[0].message.content for completion in completions}) > 8


def test_a_client_that_leaves_frees_its_places_in_the_engine(served: Served, ask: Any) -> None:
    abandoned = served.health()["abandoned"]
    began = time.monotonic()
    ask(n=32, temperature=1.5)
    quarter = time.monotonic() - began
    with pytest.raises(openai.APITimeoutError):
        ask(n=128, temperature=1.5, timeout=1.5)
    began = time.monotonic()
    assert ask().choices[0].finish_reason == "stop"
    assert time.monotonic() - began < 2 * quarter, "the engine went on with completions that nobody awaits"
    health = served.health()
    assert (health["abandoned"], health["in_engines"], health["in_progress"]) == (abandoned + 1, 0, 0)


BAD = {
    "outside": ({"url": "../x.mp4"}, 403, "outside the served folder"),
    "missing": ({"url": "none.mp4"}, 404, "no such file"),
    "empty": ({"url": "empty.mp4"}, 400, "the file is empty"),
    "not a video": ({"url": "text.mp4"}, 400, "cannot be read as a video or an image"),
    "too long": ({"question": "where " * 3000}, 400, "engine.max_model_len) has 1024"),
    "completion": ({"max_tokens": 1000}, 400, "its completion may have 1000"),
    "election": ({"extra_body": {"election": "best"}}, 400, "no election 'best'"),
    "stream": ({"stream": True}, 400, "stream: only false"),
}


@pytest.mark.parametrize(("fields", "status", "part"), BAD.values(), ids=BAD)
def test_what_cannot_be_answered_is_refused_with_a_reason(ask: Any, fields: Any, status: int, part: str) -> None:
    with pytest.raises(openai.APIStatusError) as error:
        ask(**fields)
    assert error.value.status_code == status
    assert part in error.value.body["message"]  # type: ignore[index]


def test_the_page_shows_the_cited_frames(served: Served, asked: tuple[str, str], shapes: Path) -> None:
    question = Asked(asked[1], str(shapes / asked[0]), seed=2, method="rler")
    answered, frames = served.run(answer_with_frames(served.answerer, question))
    assert sorted(frames) == answered.replies[0].frames != []
    assert {frame.shape for frame in frames.values()} == {(56, 56, 3)}
    text = page(answered, frames, Source("clip.mp4", "policy", "m"))
    assert text.count("<img src='data:image/png;base64,") == len(frames)
    assert "Elected by rler" in text


def test_a_question_that_does_not_fit_is_bad_input(served: Served, asked: tuple[str, str], shapes: Path) -> None:
    for question in (Asked("x " * 3000, str(shapes / asked[0])), Asked("x", str(shapes / "empty.mp4"))):
        with pytest.raises(BadInput):
            served.run(answer_with_frames(served.answerer, question))
