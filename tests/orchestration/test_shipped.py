"""Files that come with SER are found from any folder. tests/test_docs.py does so from an installed wheel."""

from __future__ import annotations

from pathlib import Path

import pytest

from evidence.errors import BadInput
from orchestration import cli
from orchestration.config import load_config
from orchestration.settings import TrainConfig
from orchestration.shipped import asset

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["quickstart", "gpu/qwen2_5_vl_7b_8"])
def test_a_config_is_found_by_its_name_from_any_folder(name, tmp_path, monkeypatch, capsys):
    keys = ["data.train=a.json", "data.heldout=b.json", "model.policy=p", "model.referee=r", "run_dir=runs/x"]
    monkeypatch.chdir(tmp_path)
    assert cli.main(["config", name, *keys]) == 0
    by_name = capsys.readouterr().out
    assert cli.main(["config", str(ROOT / f"configs/experiment/{name}.yaml"), *keys]) == 0
    assert capsys.readouterr().out == by_name


def test_an_unknown_name_is_refused_with_the_known_ones_of_that_command(capsys):
    assert cli.main(["train", "quikstart"]) == 2
    line = capsys.readouterr().err
    assert "the nearest is quickstart" in line
    assert "gpu/qwen2_5_vl_7b_8" in line
    assert "parts" not in line
    assert cli.main(["sft", "polixy"]) == 2
    assert "the nearest is policy" in capsys.readouterr().err


def test_an_asset_is_relative_only_below_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert asset("policy") == "assets/policy"
    monkeypatch.chdir(tmp_path)
    assert asset("policy") == str(ROOT / "assets/policy")


def test_an_unknown_asset_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match=r"model.policy: .*no such embedded model; there are: policy, policy-vstar, ref"):
        load_config(TrainConfig, "configs/experiment/quickstart.yaml", ["model.policy='${asset:polizy}'"])
