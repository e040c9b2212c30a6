"""`ser sft` on two real ZeRO-3 ranks: an interrupted run continues as if uninterrupted, also on fewer ranks; its last
checkpoint is exported as its model; a clip that cannot be read costs only its own samples."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from safetensors.numpy import load_file

from orchestration import cli
from orchestration.commands import sft as command
from orchestration.interruption import Interruption
from orchestration.supervision.waiting import ActorLost, no_answer
from rollout.dataset.mix import DataShare
from rollout.dataset.shapes import make_shapes

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]


def sft(folder: Path, data: Path, *more: str) -> None:
    command = [
        *(sys.executable, "-m", "orchestration", "sft", "configs/sft/policy.yaml"),
        f"run_dir={folder}",
        f"out={folder}/model",
        f"stages=[{{data: {data}, steps: 4}}]",
        *("clips=3", "ranks=2", "checkpoint.every=2", "schedule.warmup=1", "dtype=float32", "wandb=disabled", *more),
    ]
    env = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    subprocess.run(command, cwd=ROOT, check=True, timeout=300, env=env)


def test_the_limit_of_the_row_source_names_every_key_that_sets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def expire(refs: object, actors: object, doing: str, seconds: float, key: str) -> None:
        raise ActorLost(no_answer("the row source", doing, seconds, key))

    monkeypatch.setattr(command, "results", expire)
    config = command.SftConfig(stages=[command.Stage([DataShare("a.json")], 1)], clips=2, wandb="disabled")
    source = Mock()
    source.micro_batches.options.return_value.remote.return_value = [None] * (config.ranks + 1)
    with pytest.raises(
        ActorLost, match=r"1260 s .*\(limits\.start_s, and 3 times frames\.timeout_s for each of a step"
    ):
        command._train(config, tmp_path, Mock(), source, {"step": 0, "data": {}}, Interruption())


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    make_shapes(tmp_path / "data", train=6, val=0, test=0, workers=1)
    data = tmp_path / "data/train.json"
    (tmp_path / "data" / json.loads(data.read_text())[0]["video_path"]).write_text("no video")
    sft(tmp_path / "whole", data)
    sft(tmp_path / "parts", data, "stop_after=2")
    shutil.copytree(tmp_path / "parts", tmp_path / "fewer")
    for change in ("schedule.lr=0.1", "frames.decoder=pyav"):  # not the config of the run in that folder
        with pytest.raises(subprocess.CalledProcessError) as refused:
            sft(tmp_path / "parts", data, "resume=auto", change)
        assert refused.value.returncode == 2
    sft(tmp_path / "parts", data, "resume=auto", "frames.workers=1")
    model = tmp_path / "parts/model/model.safetensors"
    written = model.stat().st_mtime_ns
    sft(tmp_path / "parts", data, "resume=auto", "frames.workers=1")
    assert model.stat().st_mtime_ns == written, "a run that has ended is left as it is"
    whole, parts = (load_file(tmp_path / name / "model/model.safetensors") for name in ("whole", "parts"))
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name], err_msg=name)
    assert cli.main(["export", str(tmp_path / "parts"), "--out", str(tmp_path / "out"), "--dtype", "float32"]) == 0
    for name, exported in load_file(tmp_path / "out/model.safetensors").items():
        np.testing.assert_array_equal(whole[name], exported, err_msg=name)
    sft(tmp_path / "fewer", data, "resume=auto", "ranks=1")
    fewer = load_file(tmp_path / "fewer/model/model.safetensors")
    # For a gradient near 0 rounding decides the sign of Adam's step; one such weight adds some 1e-10.
    squared_difference = sum(np.square(fewer[name] - whole[name], dtype=np.float64).sum() for name in whole)
    assert squared_difference <= 1e-8 * sum(np.square(whole[name], dtype=np.float64).sum() for name in whole)
    lines = [json.loads(line) for line in (tmp_path / "parts/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert sum(line["clips_left_out"] for line in lines) == 2, "each of the 6 clips is drawn twice"
    assert lines[-1]["frames/decoded"] == 5
    assert lines[-1]["loss"] < lines[0]["loss"]
