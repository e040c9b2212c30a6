"""The table of `ser doctor`, its exit code, and what it takes from a config."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration import cli
from orchestration.commands.doctor import QUICKSTART, needs_of
from orchestration.config import load_config
from orchestration.settings import TrainConfig

ROOT = Path(__file__).parents[3]
EXPERIMENTS = ROOT / "configs/experiment"


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_without_a_config_the_quickstart_is_judged() -> None:
    needs = needs_of(load_config(TrainConfig, EXPERIMENTS / "quickstart.yaml"))
    assert (needs.gpus, needs.processes, needs.store_gib) == (0, QUICKSTART.processes, QUICKSTART.store_gib)
    assert needs.disk_gib <= QUICKSTART.disk_gib


def test_a_config_says_what_is_needed() -> None:
    overrides = ["wandb=online", "run_dir=/runs/a", "checkpoint.keep=1", "learner.export_dtype=bfloat16"]
    needs = needs_of(load_config(TrainConfig, EXPERIMENTS / "gpu/qwen2_5_vl_7b_8.yaml", overrides))
    assert (needs.gpus, needs.processes, needs.store_gib, needs.folder) == (8, 8, 64, "/runs/a")
    assert needs.online
    # Two checkpoints of 12 bytes for each of 7.6 billion trained parameters, and an export of 8.3 billion in bfloat16.
    assert needs.disk_gib == pytest.approx((2 * 12 * 7.6e9 + 2 * 8.3e9) / 2**30, rel=0.02)
    assert needs.memory_gib > 64


def test_a_run_that_would_fail_is_exit_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")  # no driver
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert cli.main(["doctor", str(EXPERIMENTS / "gpu/qwen2_5_vl_7b_8.yaml"), "cluster.object_store_gib=100000"]) == 1
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("ser: a run would fail on this machine: ")
    for subject in ("/dev/shm", "object store", "compiler", "CUDA", "GPUs"):
        assert subject in line
        assert f"\nFAILS  {subject}" in printed.out


def test_a_joined_cluster_holds_the_object_store_and_the_other_gpus(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    config, store = str(EXPERIMENTS / "quickstart.yaml"), "cluster.object_store_gib=100000"
    assert cli.main(["doctor", config, store, "cluster.gpus_per_engine=1", "cluster.gpus_per_rank=1"]) == 0
    assert "note   cluster" in capsys.readouterr().out


def test_a_config_that_does_not_exist_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "missing.yaml"]) == 2
    assert "missing.yaml" in capsys.readouterr().err
