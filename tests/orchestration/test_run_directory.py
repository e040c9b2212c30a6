"""The folder of a run is held by one process at a time."""

from __future__ import annotations

import fcntl
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from evidence.errors import BadInput, RunFailed
from orchestration import run_directory
from orchestration.config import load_config
from orchestration.run_directory import LOCK, claimed, held
from orchestration.settings import TrainConfig

ROOT = Path(__file__).parents[2]


def test_of_two_runs_started_at_once_one_gets_the_folder(tmp_path: Path) -> None:
    config = load_config(TrainConfig, ROOT / "configs/experiment/quickstart.yaml", [f"run_dir={tmp_path}/run"])
    other = replace(config, seed=1)
    with claimed(tmp_path / "run", config, again=False):
        for again in (False, True):
            with (
                pytest.raises(RunFailed, match=rf"^run_dir = {tmp_path}/run: another process is running in it"),
                claimed(tmp_path / "run", other, again),
            ):
                pass
    with (
        pytest.raises(BadInput, match=rf"^run_dir = {tmp_path}/run: already holds a run"),
        claimed(tmp_path / "run", other, again=False),
    ):
        pass
    assert load_config(TrainConfig, tmp_path / "run/config.yaml") == config
    with claimed(tmp_path / "run", other, again=True):
        assert load_config(TrainConfig, tmp_path / "run/config.yaml") == other


def test_a_look_at_a_folder_does_not_keep_a_run_from_starting(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    with (tmp_path / LOCK).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # as is_held does
        threading.Timer(0.2, fcntl.flock, (lock, fcntl.LOCK_UN)).start()
        with held("run_dir", tmp_path):
            pass


def test_a_run_killed_while_it_claims_its_folder_does_not_hold_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(TrainConfig, ROOT / "configs/experiment/quickstart.yaml", [f"run_dir={tmp_path}/run"])

    def killed(*args: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_directory, "to_yaml", killed)
        with pytest.raises(KeyboardInterrupt), claimed(tmp_path / "run", config, again=False):
            pass
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["lock"]
    with claimed(tmp_path / "run", config, again=False):
        pass
