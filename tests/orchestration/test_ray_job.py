"""Training on a cluster: the commands of docs/cluster.md, run as they are written in a copy of the repository.

Only what must not meet another Ray of this machine is replaced: ports, and Ray's folder. The home folder is a new one,
so there is no token before the page makes it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ray_head import free_ports, stop, wait_until_started

from rollout.dataset.shapes import make_shapes

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/cluster.md"
SMALL = "steps=3 eval.samples=2 pacing.groups_per_step=2 sampling.group_size=4 wandb=disabled"


def commands(heading: str) -> str:
    """The first block of commands below a heading of the page."""
    section = PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return section.split("```\n")[1].strip()


@dataclass
class Shell:
    """Runs commands of the page, each in a new shell in `folder`. `own`: replacements of parts of them."""

    folder: Path
    env: dict[str, str]
    own: dict[str, str]

    def script(self, heading: str) -> str:
        text = commands(heading)
        for theirs, own in self.own.items():
            text = text.replace(theirs, own)
        return f"set -e\n{commands('In every shell')}\n{text}"

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", script], cwd=self.folder, env=self.env, timeout=400, capture_output=True, text=True
        )

    def start(self, heading: str, log: Path) -> subprocess.Popen[bytes]:
        """Start a node, whose process takes the place of the shell's."""
        script = self.script(heading).replace("ray start", "exec ray start")
        with log.open("wb") as out:
            return subprocess.Popen(
                ["bash", "-c", script], cwd=self.folder, env=self.env, stdout=out, stderr=out, start_new_session=True
            )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the repository's files with a small world and this environment."""
    folder = tmp_path / "clone"
    shutil.copytree(
        ROOT,
        folder,
        ignore=shutil.ignore_patterns(
            ".git", ".venv", ".*_cache", ".hypothesis", "runs", "data", "*.egg-info", "__pycache__"
        ),
    )
    (folder / ".venv").symlink_to(sys.prefix)
    make_shapes(folder / "data/shapes", train=6, val=0, test=2, questions=1, workers=1)
    return folder


@pytest.fixture
def shell(clone: Path, tmp_path: Path) -> Iterator[Shell]:
    """A shell of a new user, with a cluster started by the page's commands."""
    gcs, dashboard, client, agent, other_agent = free_ports(5)
    ray_folder = Path("/tmp") / f"ser-ray-{os.getpid()}"  # short, since the length of a socket's path is limited
    own = {
        "--port=6379": f"--port={gcs} --ray-client-server-port={client} --dashboard-agent-listen-port={agent} "
        f"--temp-dir={ray_folder}",
        "$HEAD:6379": f"$HEAD:{gcs} --dashboard-agent-listen-port={other_agent}",
        "8265": str(dashboard),
    }
    assert all(part in PAGE.read_text() for part in own)
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_") and k != "OMP_NUM_THREADS"}
    home = tmp_path / "home"
    home.mkdir()
    shell = Shell(clone, env | {"HOME": str(home)}, own)
    token = shell.run(shell.script("The token"))
    assert token.returncode == 0, token.stderr
    assert (home / ".ray/auth_token").stat().st_mode & 0o777 == 0o600
    head = shell.start("The head", tmp_path / "head.log")
    try:
        wait_until_started(head, tmp_path / "head.log")
        yield shell
    finally:
        stop(head)
        shutil.rmtree(ray_folder, ignore_errors=True)


def test_the_page_starts_a_cluster_with_authentication_and_trains_on_it(shell: Shell, tmp_path: Path) -> None:
    submit = shell.script("The job")
    without = shell.run(submit.replace("export RAY_AUTH_MODE=token", ""))
    assert without.returncode != 0
    assert "Missing authentication token" in without.stderr, "the cluster requires the token"

    relative = submit.replace("run_dir=$PWD/runs/job", "run_dir=runs/job")
    refused = _submitted(shell, relative)
    assert refused.returncode != 0
    assert "run_dir = runs/job" in refused.stdout + refused.stderr

    done = _submitted(shell, f"{submit} {SMALL}")
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert json.loads((shell.folder / "runs/job/summary.json").read_text())["trained_groups"] == 6

    (address,) = re.findall(r"Local node IP\S*: \S*?(\d+\.\d+\.\d+\.\d+)", (tmp_path / "head.log").read_text())
    shell.env["HEAD"] = address
    node = shell.start("Further machines", tmp_path / "node.log")
    try:
        wait_until_started(node, tmp_path / "node.log")
    finally:
        stop(node)


def _submitted(shell: Shell, script: str) -> subprocess.CompletedProcess[str]:
    """Submit, again until the head's agent is up, which is after "Ray runtime started"."""
    for _ in range(30):
        done = shell.run(script)
        if "No available agent" not in done.stdout + done.stderr:
            break
        time.sleep(2)
    return done
