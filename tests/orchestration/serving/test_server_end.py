"""The end of the server, in a process of its own: SIGTERM and Ctrl-C, before and while it serves, give exit code 0."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[3]
# A server whose engine takes `starting` seconds to start and `answering` seconds to answer.
CODE = """
import asyncio, sys
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from orchestration.serving.server import Address, Stop

starting, answering = map(float, sys.argv[1:])

async def answer(request):
    print("asked", flush=True)
    await asyncio.sleep(answering)
    return PlainTextResponse("answered")

async def main():
    with Stop(grace_s=1) as stop:
        print("starting", flush=True)
        await asyncio.sleep(starting)
        await stop.serve(Starlette(routes=[Route("/", answer)]), Address("127.0.0.1", 0).bind(), "model")
    print("ended")

asyncio.run(main())
"""


def started(starting: float, answering: float) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", CODE, str(starting), str(answering)]
    process = subprocess.Popen(
        arguments, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout.readline() == "starting\n"
    return process


def asked(process: subprocess.Popen[str]) -> tuple[threading.Thread, list[str]]:
    """A client that waits for its answer, and the answers that it got."""
    line = process.stderr.readline()
    assert line.startswith("serving model at http://127.0.0.1:")
    answers: list[str] = []

    def ask() -> None:
        try:
            answers.append(httpx.get(line.split()[-1].removesuffix("/v1"), timeout=30).text)
        except httpx.HTTPError as error:
            answers.append(type(error).__name__)

    client = threading.Thread(target=ask)
    client.start()
    assert process.stdout.readline() == "asked\n"
    return client, answers


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_engine_starts(number):
    process = started(60, 0)
    process.send_signal(number)
    assert process.communicate(timeout=20) == ("ended\n", "")
    assert process.returncode == 0


def test_a_request_in_progress_is_answered_and_then_the_server_ends():
    process = started(0, 0.5)
    client, answers = asked(process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    client.join(20)
    assert (process.returncode, output, answers) == (0, "ended\n", ["answered"])


def test_a_request_that_takes_too_long_does_not_hold_the_server():
    process = started(0, 60)
    client, answers = asked(process)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    client.join(20)
    assert (process.returncode, output) == (0, "ended\n")
    assert time.monotonic() - began < 20
    assert answers != ["answered"]
