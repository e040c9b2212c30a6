"""Files that come with SER, found from any folder: by name in a checkout, and in an installed wheel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
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


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The `ser` of an environment that holds the wheel of this tree and, of the checkout's environment, the packages
    alone: their folder is on the path, but the links to the checkout in it are not followed."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    source = folder / "source"
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source], check=True)
    venv.create(folder / "env", symlinks=True)
    packages = folder / "env/lib/python3.11/site-packages"
    shared = sysconfig.get_paths()["purelib"]
    hook = "import ser_torchvision_ops\n" if Path(shared, "ser_torchvision_ops.py").is_file() else ""
    (packages / "shared.pth").write_text(f"{shared}\n{hook}")
    wheel = next(folder.glob("ser-*.whl"))
    subprocess.run([*pip, "--python", folder / "env/bin/python", "install", "--no-deps", wheel], check=True)
    return folder / "env/bin/ser"


def run(ser: Path, folder: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [ser, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_trains_the_quickstart_outside_a_checkout(installed, tmp_path):
    config = run(installed, tmp_path, "config", "quickstart")
    assert f"policy: {installed.parents[1]}/lib/python3.11/site-packages/ser_files/assets/policy" in config
    plan = json.loads(run(installed, tmp_path, "plan", "gpu/qwen2_5_vl_7b_8", "data.train=a", "--json"))
    assert plan["fits"]
    counts = ("--train", "32", "--val", "4", "--test", "8", "--questions", "1", "--seed", "7")
    run(installed, tmp_path, "data", "make-shapes", "data/shapes", *counts)
    run(installed, tmp_path, "train", "quickstart", "steps=1", "eval.samples=4", "run_dir=run")
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 1
    assert str(ROOT) not in (tmp_path / "run/config.yaml").read_text()
