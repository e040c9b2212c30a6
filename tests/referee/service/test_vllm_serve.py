"""The embedded referee gives the same verdicts in an actor and behind vLLM's own HTTP server."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import ray

from benchmarks.asset_quality import load_world
from evidence.types import Claim, Verdict
from referee.actor import RefereeActor, RefereeConfig
from referee.service.http_backend import HttpBackend
from referee.service.service import RefereeService, ServiceConfig
from referee.service.sources import SCALE_SLOT, RefereeSource
from rollout.dataset.shapes import COLOURS, background
from rollout.engine import EngineConfig

pytestmark = pytest.mark.slow
MODEL = str(Path(__file__).parents[3] / "assets/referee")
START_S = 300
VERIFICATION = load_world().verification  # with another wording the embedded referee always gives the same answer
QUESTION = "Where is the red circle at 3.0 s?"
CLAIMS = [Claim("red circle", (x, 10.0, x + 20.0, 32.0), x / 5, (0, 0)) for x in (0.0, 8.0, 16.0, 30.0)]
# Settings for a CPU engine of this size; `vllm serve` runs this same module.
SERVE = (
    *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", MODEL, "--served-model-name", "referee"),
    *("--host", "127.0.0.1", "--dtype", "float32", "--max-model-len", "512", "--max-num-seqs", "16"),
    *("--enforce-eager", "--kv-cache-memory-bytes", str(2**28), "--distributed-executor-backend", "uni"),
    *("--limit-mm-per-prompt", '{"image": 2, "video": 0}', "--no-enable-chunked-prefill"),
    *("--max-num-batched-tokens", "4096"),
)
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "TORCH_COMPILE_DISABLE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that may still be starting."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    with log.open("w") as out:
        server = subprocess.Popen(
            [*SERVE, "--port", str(port)], stdout=out, stderr=out, env=os.environ | ENVIRONMENT, start_new_session=True
        )
    yield f"http://127.0.0.1:{port}/v1"
    os.killpg(server.pid, signal.SIGTERM)
    try:
        server.wait(timeout=30)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def actor(ray_cluster: object) -> Iterator[object]:
    started = RefereeActor.remote(RefereeConfig(EngineConfig(MODEL, max_model_len=512, max_images=2), VERIFICATION))
    yield started
    ray.kill(started)


def wait_until_healthy(url: str) -> None:
    until = time.monotonic() + START_S
    while True:
        try:
            urllib.request.urlopen(url.removesuffix("/v1") + "/health", timeout=5).close()
            return
        except OSError:
            assert time.monotonic() < until, "vLLM's server does not start"
            time.sleep(0.5)


def test_the_same_verdicts_over_http_as_in_an_actor(url, actor, info):
    scene = cv2.resize(background(np.random.default_rng(0)), info.size, interpolation=cv2.INTER_AREA)
    cv2.circle(scene, (18, 21), 10, COLOURS["red"], -1, cv2.LINE_AA)  # where the second claim says
    frames = np.repeat(scene[None], 8, axis=0)
    ray.get(actor.ready.remote(), timeout=START_S)
    in_actor = ray.get(actor.verify.remote(QUESTION, CLAIMS, info, frames), timeout=60)
    judged = ray.get(actor.judge.remote(QUESTION, "top left", "top left"), timeout=60)
    wait_until_healthy(url)

    async def over_http(**extra: object) -> tuple[list[Verdict | None], float | None]:
        source = RefereeSource("referee", url, extra_body=extra)
        config = ServiceConfig(max_concurrent=4)
        service = RefereeService(HttpBackend(source, True, 4, 60.0), VERIFICATION, config)
        await service.start()
        try:
            return await service.verify(QUESTION, CLAIMS, info, frames), await service.judge(
                QUESTION, *["top left"] * 2
            )
        finally:
            await service.backend.stop()

    for extra in ({}, {"structured_outputs": {"choice": SCALE_SLOT}}):
        served, served_judgement = asyncio.run(over_http(**extra))
        assert [(v.relevance, v.localization) for v in served] == [
            pytest.approx((v.relevance, v.localization), abs=1e-4) for v in in_actor
        ]
        assert served_judgement == pytest.approx(judged, abs=1e-4)
    assert len({round(v.relevance, 3) for v in in_actor}) > 1, "the verdicts must not be constant"
