"""`ser train --warm-start`: the order of the two runs, and what is done once. Stand-ins take the runs' place."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration import cli, train
from orchestration.commands import sft
from orchestration.commands.sft import SftConfig
from orchestration.config import to_yaml
from orchestration.settings import TrainConfig

WARM = "stages: [{{data: a.json, steps: {steps}}}]\nrun_dir: {folder}/warm\nout: {folder}/warm/model\n"


class Runs:
    """Stands for both runs: records their configs, and writes what a warm start leaves."""

    def __init__(self) -> None:
        self.made: list[SftConfig | TrainConfig] = []

    def warm(self, config: SftConfig) -> None:
        self.made.append(config)
        Path(config.out).mkdir(parents=True, exist_ok=True)
        Path(config.out, "config.json").write_text("{}")
        Path(config.run_dir, "config.yaml").write_text(to_yaml(config))

    def train(self, config: TrainConfig) -> None:
        self.made.append(config)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    runs = Runs()
    monkeypatch.setattr(sft, "main", runs.warm)
    monkeypatch.setattr(train, "main", runs.train)
    return runs


def start(folder: Path, steps: int = 3) -> int:
    (folder / "warm.yaml").write_text(WARM.format(folder=folder, steps=steps))
    return cli.main(["train", "quickstart", "--warm-start", f"{folder}/warm.yaml", "seed=5"])


def test_training_starts_from_the_model_of_the_warm_start(runs: Runs, tmp_path: Path) -> None:
    assert start(tmp_path) == 0
    warm, config = runs.made
    assert warm.resume == "auto"
    assert (config.model.policy, config.seed) == (f"{tmp_path}/warm/model", 5)


def test_a_warm_start_that_is_done_is_not_done_again(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    start(tmp_path)
    assert start(tmp_path) == 0
    assert [type(config) for config in runs.made] == [SftConfig, TrainConfig, TrainConfig]
    assert f"{tmp_path}/warm/model: is there; training starts from it" in capsys.readouterr().out


def test_another_warm_start_is_left_to_sft_which_refuses_what_it_may_not_change(runs: Runs, tmp_path: Path) -> None:
    start(tmp_path)
    start(tmp_path, steps=4)
    assert [type(config) for config in runs.made] == [SftConfig, TrainConfig, SftConfig, TrainConfig]


def test_what_is_wrong_with_the_training_is_said_before_the_warm_start(runs: Runs, tmp_path: Path, capsys) -> None:
    (tmp_path / "warm.yaml").write_text(WARM.format(folder=tmp_path, steps=3))
    assert cli.main(["train", "quickstart", "--warm-start", f"{tmp_path}/warm.yaml", "step=5"]) == 2
    assert "unknown key step" in capsys.readouterr().err
    (tmp_path / "warm.yaml").write_text(WARM.format(folder=tmp_path, steps=3) + "model: assets/policy\n")
    assert cli.main(["train", "quickstart", "--warm-start", f"{tmp_path}/warm.yaml", "data.train=no.json"]) == 2
    assert "no.json: no such dataset file" in capsys.readouterr().err
    assert runs.made == []
