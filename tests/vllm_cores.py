"""Recognises the processes in which vLLM runs its engines."""

from __future__ import annotations

import contextlib

import psutil

# vLLM gives its process a title; where that fails, which it does without a word, Python's command line stays.
TITLE, SPAWNED = "VLLM::EngineCore", "multiprocessing.spawn"


def cores_of(actor: psutil.Process) -> list[psutil.Process]:
    """The engine processes that this process has started, one that is still starting included."""
    cores = []
    for child in actor.children():
        with contextlib.suppress(psutil.Error):
            command = " ".join(child.cmdline())
            if command.startswith(TITLE) or SPAWNED in command:
                cores.append(child)
    return cores
