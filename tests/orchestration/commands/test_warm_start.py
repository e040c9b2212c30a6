"""`ser train --warm-start`: the order of the two runs, and what is refused. Stand-ins take the runs' place."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration import cli, train
from orchestration.commands import sft
from orchestration.commands.sft import SftConfig
from orchestration.settings import TrainConfig

WARM = "stages: [{{data: a.json, steps: 3}}]\nrun_dir: {folder}/warm\nout: {folder}/warm/model\n"


class Runs:
    """Stands for both runs: records their configs."""

    def __init__(self) -> None:
        self.made: list[SftConfig | TrainConfig] = []


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    runs = Runs()
    monkeypatch.setattr(sft, "main", runs.made.append)
    monkeypatch.setattr(train, "main", runs.made.append)
    return runs


def start(folder: Path, *overrides: str, more: str = "") -> int:
    (folder / "warm.yaml").write_text(WARM.format(folder=folder) + more)
    run = f"run_dir={folder}/run"
    return cli.main(["train", "quickstart", "--warm-start", f"{folder}/warm.yaml", "seed=5", run, *overrides])


def test_training_starts_from_the_model_of_the_warm_start(runs: Runs, tmp_path: Path) -> None:
    assert start(tmp_path) == 0
    warm, config = runs.made
    assert warm.resume == "auto"
    assert (config.model.policy, config.seed) == (f"{tmp_path}/warm/model", 5)


@pytest.mark.parametrize(
    ("override", "more", "message"),
    [
        ("step=5", "", "unknown key step"),
        ("data.train=no.json", "model: assets/policy\n", "no.json: no such dataset file"),
        ("model.policy=/models/X", "", "model.policy: is the model of --warm-start; leave one of the two out"),
        ("dry_run=true", "", "dry_run: takes no --warm-start"),
        ("steps=3", "task: verify\n", "task = verify: trains a referee"),
        ("resume=7", "", "resume = 7: "),
    ],
)
def test_what_is_wrong_is_said_before_the_warm_start(
    runs: Runs, override: str, more: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(tmp_path, override, more=more) == 2
    assert message in capsys.readouterr().err
    assert runs.made == []


def test_a_folder_that_holds_a_run_is_refused_before_the_warm_start(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("")
    assert start(tmp_path) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert runs.made == []
