"""The files of configs/cluster for Slurm and Kubernetes, as far as a machine without either can run them."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import yaml

from orchestration import cli

ROOT = Path(__file__).parents[2]
FILES = ROOT / "configs/cluster"
# Stand for the programs of a Slurm cluster and of the environment. `srun` runs what comes after its own options.
PROGRAMS = {
    "scontrol": 'if [ "$1" = show ]; then printf "one\\ntwo\\n"; else echo "$*" >> requeued; fi',
    "srun": """echo "$*" >> srun
        while [[ "$1" == --* ]]; do shift; done
        setsid "$@" & task=$!
        trap 'kill -- -"$task"' TERM  # a step is ended with all its processes
        wait""",
    "ray": """case "$1" in
        get-auth-token) mkdir -p ~/.ray; echo secret > ~/.ray/auth_token ;;
        start) echo "$BASHPID $*" >> ray; exec sleep 300 ;;
        health-check) [ "$(cat ray 2> /dev/null | wc -l)" -ge "${NEEDED:-2}" ] ;;
    esac""",
    "ser": """trap 'sleep "$SER_SAVES_S"; exit 75' TERM
        echo "$RAY_ADDRESS $RAY_AUTH_MODE $*" > ser
        sleep "$SER_S" & wait; exit "$SER_CODE" """,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    for name, script in PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/bash\n{script}\n")
        (programs / name).chmod(0o755)
    return tmp_path


def submitted(folder: Path, *arguments: str, seconds: str = "0", code: str = "0") -> subprocess.Popen[str]:
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_NUM_NODES": "2", "HOME": str(folder)}
    return subprocess.Popen(
        ["bash", str(FILES / "slurm.sbatch"), *arguments],
        cwd=folder,
        env=os.environ | slurm | {"SER_S": seconds, "SER_CODE": code, "OBJECT_STORE_GIB": "2"},
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(folder: Path) -> bool:
    """Whether all of Ray's processes have ended."""
    pids = [line.split()[0] for line in (folder / "ray").read_text().splitlines()]
    end = time.monotonic() + 20
    while any(psutil.pid_exists(int(pid)) for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    return len(pids) == 2 and not any(psutil.pid_exists(int(pid)) for pid in pids)


def test_a_training_joins_the_nodes_of_its_job_and_ends_with_its_code(folder: Path) -> None:
    assert submitted(folder, "quickstart", "steps=3", code="1").wait(timeout=60) == 1
    assert (folder / "ser").read_text() == "one:6379 token train quickstart steps=3 resume=auto\n"
    head, others = sorted((folder / "srun").read_text().splitlines(), key=lambda line: "--exclude" in line)
    assert head.startswith("--nodes=1 --ntasks=1 --nodelist=one ray start --block")
    assert head.endswith("--object-store-memory=2147483648 --head --port=6379 --temp-dir=/tmp/ray-7")
    assert others.startswith("--nodes=1 --ntasks=1 --exclude=one")
    assert others.endswith("--address=one:6379")
    assert (folder / ".ray/auth_token").stat().st_mode & 0o777 == 0o600
    assert not (folder / "requeued").exists()
    assert ended(folder)


@pytest.mark.parametrize("saves_s", ["0", "1"])
def test_an_interrupted_training_is_queued_again(folder: Path, saves_s: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm signals the batch script alone, before it ends the job."""
    monkeypatch.setenv("SER_SAVES_S", saves_s)
    job = submitted(folder, "quickstart", seconds="300")
    while not (folder / "ser").exists():
        time.sleep(0.05)
        assert job.poll() is None
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=60) == 75
    assert (folder / "requeued").read_text() == "requeue 7\n"
    assert ended(folder)


def test_a_signal_before_the_training_queues_the_job_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEEDED", "3")
    job = submitted(folder, "quickstart")
    while not (folder / "ray").exists():
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=60) == 75
    assert (folder / "requeued").read_text() == "requeue 7\n"
    assert not (folder / "ser").exists()


def test_a_head_that_does_not_start_ends_the_job(folder: Path) -> None:
    (folder / ".venv/bin/srun").write_text("#!/bin/bash\nexit 1\n")
    job = submitted(folder, "quickstart")
    assert job.wait(timeout=60) == 1
    assert job.stderr is not None
    assert "slurm.sbatch: Ray has not started on one" in job.stderr.read()


def test_a_job_without_a_config_is_one_line(folder: Path) -> None:
    job = submitted(folder)
    assert job.wait(timeout=60) == 2
    assert job.stderr is not None
    assert job.stderr.read() == "slurm.sbatch: no config; sbatch … slurm.sbatch CONFIG [KEY=VALUE …]\n"


def test_the_job_on_kubernetes_trains_a_config_that_exists(capsys: pytest.CaptureFixture[str]) -> None:
    job = yaml.safe_load((FILES / "kuberay.yaml").read_text())["spec"]
    _, command, *arguments = shlex.split(job["entrypoint"])
    assert command == "train"
    assert cli.main(["config", *arguments]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    cluster = job["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    limits = [group["template"]["spec"]["containers"][0]["resources"]["limits"] for group in groups]
    gpus = sum(group.get("replicas", 1) * int(limit["nvidia.com/gpu"]) for group, limit in zip(groups, limits))
    sizes = config["cluster"], config["learner"]["ranks"], config["model"]["referee"][0]["replicas"]
    assert gpus == sizes[0]["rollout_engines"] * sizes[0]["gpus_per_engine"] + sizes[1] + sizes[2]
    for group in groups:
        store = int(group["rayStartParams"]["object-store-memory"])
        assert store >= config["cluster"]["object_store_gib"] * 2**30
    assert f"ray[default]=={cluster['rayVersion']}" in (ROOT / "setup.py").read_text()
