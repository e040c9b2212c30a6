"""Training on a cluster: `ray job submit` runs `python -m orchestration train` from an uploaded copy of the project."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rollout.dataset.shapes import make_shapes

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for listener in sockets:
        listener.bind(("127.0.0.1", 0))
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


@pytest.fixture
def head(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(dashboard address, environment) of a Ray head that this test starts and stops.

    It has its own ports: a job needs the head's agent, and another Ray on this machine may hold that agent's port.
    """
    gcs, dashboard, client, agent = free_ports(4)
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    env |= {"PATH": f"{BIN}:{env['PATH']}", "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    folder = Path("/tmp") / f"ser-ray-{os.getpid()}"  # short, since the length of a socket's path is limited
    command = [
        *(str(BIN / "ray"), "start", "--head", "--block", f"--port={gcs}", f"--dashboard-port={dashboard}"),
        *(f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}"),
        *("--object-store-memory=500000000", f"--temp-dir={folder}"),
    ]
    with (tmp_path / "head.log").open("w") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        yield f"http://127.0.0.1:{dashboard}", env
    finally:
        process.terminate()
        process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_submitted_job_trains_three_steps(head: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    address, env = head
    make_shapes(tmp_path / "shapes", train=6, val=0, test=2, questions=1, workers=1)
    run_dir = tmp_path / "run"
    submit = [
        *(str(BIN / "ray"), "job", "submit", "--address", address, "--working-dir", ".", "--"),
        *("python", "-m", "orchestration", "train", "configs/experiment/quickstart.yaml"),
        *(f"data.train={tmp_path}/shapes/train.json", f"data.heldout={tmp_path}/shapes/test.json"),
        *("steps=3", "eval.samples=2", "pacing.groups_per_step=2", "sampling.group_size=4", "wandb=disabled"),
    ]
    refused = _submit([*submit, "run_dir=runs/relative"], env)
    assert refused.returncode != 0
    assert "run_dir = runs/relative" in refused.stdout + refused.stderr

    done = _submit([*submit, f"run_dir={run_dir}"], env)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert json.loads((run_dir / "summary.json").read_text())["trained_groups"] == 6


def _submit(command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Submit, again until the head's dashboard and its agent are up."""
    for _ in range(30):
        done = subprocess.run(command, cwd=ROOT, env=env, timeout=400, capture_output=True, text=True)
        output = done.stdout + done.stderr
        if "Failed to connect to Ray" not in output and "No available agent" not in output:
            break
        time.sleep(2)
    return done
