"""Signals, sent to real processes: the first asks, a second one ends at once; outside training the first does, too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestration.interruption import REPEATED_S

ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio, sys, time
from orchestration.interruption import Interruption

async def train():
    interruption, woken = Interruption(), asyncio.Event()
    loop = asyncio.get_running_loop()
    with interruption.listening():
        if sys.argv[1] == "outside":
            print("ready", flush=True)
            await asyncio.sleep(60)
        with interruption.can_save(lambda: loop.call_soon_threadsafe(woken.set)):
            print("ready", flush=True)
            await woken.wait()
            print("asked by", interruption.requested, flush=True)
            if sys.argv[1] in ("slow", "repeated"):
                await asyncio.to_thread(time.sleep, 60 if sys.argv[1] == "slow" else 2)

asyncio.run(train())
"""


@pytest.mark.parametrize(
    ("where", "signals", "code", "said"),
    [
        ("training", [signal.SIGTERM], 0, "ser: SIGTERM: saving a checkpoint once the step has ended"),
        ("training", [signal.SIGINT], 0, "ser: Ctrl-C: saving a checkpoint once the step has ended"),
        ("repeated", [signal.SIGTERM, signal.SIGINT], 0, "saving a checkpoint once the step has ended"),
        ("slow", [signal.SIGTERM, signal.SIGTERM], 75, "ser: SIGTERM again: ended at once"),
        ("slow", [signal.SIGTERM, signal.SIGINT], 75, "ser: Ctrl-C again: ended at once"),
        ("outside", [signal.SIGTERM], 75, "ser: SIGTERM: ended at once, outside training"),
    ],
)
def test_signals(where: str, signals: list[signal.Signals], code: int, said: str) -> None:
    command = [sys.executable, "-c", PROGRAM, where]
    began = time.monotonic()
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for number in signals:
            if where == "slow":
                time.sleep(1.2 * REPEATED_S)
            process.send_signal(number)
            if where in ("training", "slow") and number == signals[0]:
                process.stdout.readline()
        _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert said in errors
    assert time.monotonic() - began < 30


@pytest.mark.slow
def test_rays_own_handler_does_not_take_over() -> None:
    program = """
import time
from orchestration.interruption import Interruption
from orchestration.supervision.cluster import start_ray

with Interruption().listening(), start_ray(0.1):
    print("ready", flush=True)
    time.sleep(60)
"""
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, "SIGTERM: ended at once" in errors) == (75, True)
