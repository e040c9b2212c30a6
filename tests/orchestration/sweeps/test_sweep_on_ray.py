"""`ser submit` and `ser sweep` on a real Ray cluster with token authentication.

The runs are real `ser train` commands that end within seconds: those with results have finished already, and one names
data that does not exist.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_run import claim, completion, made_run, small_config
from ray_head import ray_head

from rollout.dataset.shapes import make_shapes

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
TEXTS = [[completion(claim("red square")), completion(claim("blue circle"))]] * 3
LIMIT_S = 240.0


class Ser:
    """Runs `ser …` in the repository."""

    def __init__(self, env: dict[str, str], log: Path):
        self.env, self.log = env, log

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "orchestration", *arguments]
        with self.log.open("a") as log:
            return subprocess.Popen(command, cwd=ROOT, env=self.env, stdout=log, stderr=log, text=True)

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "orchestration", *arguments]
        return subprocess.run(command, cwd=ROOT, env=self.env | env, timeout=LIMIT_S, capture_output=True, text=True)


def wait_for(what: Callable[[], Any], log: Path) -> Any:
    end = time.monotonic() + LIMIT_S
    while not (value := what()):
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)
    return value


def started(folder: Path) -> int:
    """How many runs of the sweep have had a job."""
    path = folder / "sweep.json"
    return sum(run["starts"] > 0 for run in json.loads(path.read_text())["runs"]) if path.exists() else 0


def test_a_sweep_is_killed_interrupted_and_finished_without_starting_a_job_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, folder, file = tmp_path / "shapes", tmp_path / "mine", tmp_path / "sweep.yaml"
    make_shapes(world, train=2, val=0, test=2, questions=1, workers=1)
    for seed in (0, 1):
        made_run(small_config(world, folder / f"runs/good_seed-{seed}", f"seed={seed}"), TEXTS, monkeypatch)
    file.write_text(
        f"config: {os.path.relpath(ROOT / 'configs/experiment/quickstart.yaml', tmp_path)}\n"
        f"sweep_dir: {folder}\nseeds: [0, 1]\nparallel: 2\nretries: 3\n"
        f"fixed: {{data.heldout: {world}/test.json, steps: 3, contract.multiple: 28, wandb: disabled}}\n"
        f"variants:\n- {{name: good, set: {{data.train: {world}/train.json}}}}\n"
        f"- {{name: bad, set: {{data.train: {world}/missing.json}}}}\n"
    )
    env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    env |= {"HOME": str(tmp_path), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a1b2c3d4" * 8}
    ser = Ser(env, tmp_path / "sweep.log")
    with ray_head(tmp_path / "head.log", env) as address:
        submit = ["submit", str(ROOT / "configs/experiment/quickstart.yaml"), "--address", address, "--follow"]
        for token, said in (("b" * 64, "Invalid authentication token"), ("", "token")):
            refused = ser.run(*submit, RAY_AUTH_TOKEN=token)
            assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1), refused.stderr
            assert said in refused.stderr

        finished = [f"data.train={world}/train.json", f"data.heldout={world}/test.json", "steps=3", "resume=auto"]
        followed = _submitted(ser, [*submit, *finished, f"run_dir={folder}/runs/good_seed-0", "wandb=disabled"])
        assert followed.returncode == 0, followed.stdout + followed.stderr
        assert "has finished its 3 steps" in followed.stdout

        sweep = ("sweep", str(file), "--address", address)
        killed = ser.start(*sweep)
        wait_for(lambda: started(folder) == 2, ser.log)
        killed.kill()
        killed.wait()
        interrupted = ser.start(*sweep)
        wait_for(lambda: started(folder) > 2, ser.log)
        interrupted.send_signal(signal.SIGINT)
        assert interrupted.wait(LIMIT_S) == 75, ser.log.read_text()
        assert f"`ser sweep {file} --address {address}` goes on" in ser.log.read_text()
        done = ser.run(*sweep)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "2 of 4 runs failed: bad_seed-0, bad_seed-1" in done.stderr

        rows = {row["run"]: row for row in csv.DictReader((folder / "results.csv").open())}
        assert [rows[f"good_seed-{seed}"]["status"] for seed in (0, 1)] == ["done"] * 2
        assert all("missing.json" in rows[f"bad_seed-{seed}"]["reason"] for seed in (0, 1))
        jobs = _jobs(address, env)
        state = json.loads((folder / "sweep.json").read_text())
        ours = Counter(job.removeprefix(state["id"] + "-") for job in jobs if job.startswith(state["id"]))
        assert ours == {f"{arm}_seed-{seed}-1": 1 for arm in ("good", "bad") for seed in (0, 1)}


def _submitted(ser: Ser, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Submit, again until the head's agent is up, which is after its dashboard."""
    end = time.monotonic() + LIMIT_S
    while True:
        done = ser.run(*arguments)
        if "No available agent" not in done.stderr or time.monotonic() > end:
            return done


def _jobs(address: str, env: dict[str, str]) -> list[str]:
    """The ids of all jobs that the cluster has had, asked in another process, since Ray reads the token once."""
    program = "import sys; from ray.job_submission import JobSubmissionClient as Client; "
    program += "print(*(job.submission_id for job in Client(sys.argv[1]).list_jobs()), sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", program, address], env=env, timeout=LIMIT_S, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
