"""Promises 1 and 3 with real engines, referee and ranks: at staleness 0 the asynchronous loop trains, bit for bit, what
a plain loop trains, and so does a run that is killed and resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import equal

from orchestration import cli
from rollout.dataset.shapes import make_shapes

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
STEPS = 6


def train(folder: Path, name: str, *options: str, more: tuple[str, ...] = ()) -> int:
    """Run recorded_train in `folder` and return its exit code."""
    settings = (
        *(f"run_dir={folder}/{name}", f"data.train={folder}/shapes/train.json", f"steps={STEPS}", "eval.samples=0"),
        *(f"data.heldout={folder}/shapes/test.json", "pacing.groups_per_step=2", "pacing.staleness=0"),
        *("sampling.group_size=4", "learner.export_dtype=float32", "wandb=disabled", "cluster.object_store_gib=0.5"),
    )
    command = [sys.executable, "tests/recorded_train.py", f"{folder}/{name}.jsonl", *options]
    command += ["configs/experiment/quickstart.yaml", *settings, *more]
    env = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, timeout=400, env=env, check=False).returncode


def batches(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_killed_and_resumed_trains_what_a_plain_loop_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_shapes(tmp_path / "shapes", train=12, val=0, test=2, questions=1, workers=1)
    assert train(tmp_path, "plain", "--plain") == 0
    resumable = ("checkpoint.every=2", "resume=auto")
    assert train(tmp_path, "run", "--kill-in", "4", more=resumable) == -9
    assert train(tmp_path, "run", more=resumable) == 0

    expected = {line["step"]: line for line in batches(tmp_path / "plain.jsonl")}
    trained = batches(tmp_path / "run.jsonl")
    # Step 3 was trained, lost and trained again; every time as the plain loop does.
    assert [line["step"] for line in trained] == [1, 2, 3, 3, 4, 5, 6]
    assert all(line == expected[line["step"]] for line in trained)
    plain, run = (load_file(tmp_path / name / "model/model.safetensors") for name in ("plain", "run"))
    assert plain.keys() == run.keys()
    assert all(equal(plain[name], run[name]) for name in plain)

    capsys.readouterr()
    assert cli.main(["ledger", str(tmp_path / "run"), "--json"]) == 0
    groups = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(g["group"], g["state"], g["step"], g["lineage"]) for g in groups] == [
        (group, "trained", group // 2 + 1, 0 if group < 4 else 1) for group in range(2 * STEPS)
    ]
    metrics = batches(tmp_path / "run/metrics.jsonl")
    assert [line["step"] for line in metrics] == list(range(1, STEPS + 1))
    assert all(line["staleness/max"] == 0 for line in metrics)
