"""Waiting for a GPU's memory, with a program in place of the driver's."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from evidence.gpu_memory import free_share, wait_for_memory


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Installs an nvidia-smi that runs the given shell commands, and returns a file that records its arguments."""

    def install(script: str) -> Path:
        program = tmp_path / "nvidia-smi"
        program.write_text(f'#!/bin/bash\necho "$@" >> {tmp_path}/calls\ncd {tmp_path}\n{script}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
        return tmp_path / "calls"

    return install


def test_the_fullest_of_the_processs_own_gpus_counts(driver: Callable[[str], Path]) -> None:
    calls = driver("echo '80000, 81559'; echo '20000, 80000'")
    assert free_share() == 0.25
    assert calls.read_text().startswith("-i 2,5 ")


def test_a_start_waits_until_a_process_that_ended_has_let_its_memory_go(driver: Callable[[str], Path]) -> None:
    calls = driver("if [ $(wc -l < calls) -lt 4 ]; then echo '100, 80000'; else echo '79000, 80000'; fi")
    wait_for_memory(0.85, limit_s=30, pause_s=0.01)
    assert len(calls.read_text().splitlines()) == 4


def test_after_the_limit_the_start_goes_on_and_says_what_is_missing(
    driver: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    driver("echo '40000, 80000'")
    began = time.monotonic()
    wait_for_memory(0.85, limit_s=0.2, pause_s=0.05)
    assert 0.2 <= time.monotonic() - began < 10
    assert caplog.messages == ["50% of a GPU's memory is free after 0.2 s, 85% is needed"]
    assert caplog.records[0].levelno == logging.WARNING


def test_without_gpus_or_a_driver_nothing_is_waited_for(
    driver: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = driver("exit 9")
    wait_for_memory(0.85)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    wait_for_memory(0.85)
    assert len(calls.read_text().splitlines()) == 1, "an actor without GPUs does not ask"
