"""Ranks join their process group without compiling anything, whatever killed runs left behind."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from learner.zero.process_group import listen

ROOT = Path(__file__).parents[2]
JOIN = """
import torch
from learner.zero.process_group import join_group, listen
join_group(listen("127.0.0.1", 1, 60), 0, 1, 60)
total = torch.ones(2)
torch.distributed.all_reduce(total)
print("joined", total.tolist())
"""


def start(folder: Path, extensions: Path, **environment: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    inherited = os.environ | {"PYTHONPATH": str(ROOT), "TORCH_EXTENSIONS_DIR": str(extensions)}
    command = [sys.executable, "-c", JOIN]
    return subprocess.Popen(
        command, cwd=folder, env=inherited | environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(process: subprocess.Popen[str]) -> None:
    try:
        output, _ = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert "joined [1.0, 1.0]" in output


@pytest.mark.slow
def test_a_stale_lock_no_compiler_and_two_runs_at_once(tmp_path: Path) -> None:
    """Two runs start at once from two folders, and find the lock of a killed build in the cache that they share; one of
    them has no compiler on its PATH. Without the guarantee, both wait for ever."""
    extensions = tmp_path / "extensions"
    lock = extensions / "deepspeed_shm_comm/lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    runs = [start(tmp_path / "a", extensions), start(tmp_path / "b", extensions, PATH="/nonexistent", CXX="/none")]
    for run in runs:
        finish(run)
    assert [path for path in extensions.rglob("*") if path.is_file()] == [lock]  # nothing was compiled


def test_nobody_takes_the_port_before_the_ranks_have_met() -> None:
    """Were it only found free, another process could listen on it by the time the ranks use it."""
    store = listen("127.0.0.1", 2, 60)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", store.port))
