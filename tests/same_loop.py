"""Compares `ser train` at staleness 0, killed and resumed, with a plain loop, bit for bit.

    python tests/same_loop.py        # 20 steps, killed in every third

Every process is real (tests/recorded_train.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import equal

from rollout.dataset.shapes import make_shapes

ROOT = Path(__file__).parents[1]
GROUPS_PER_STEP = 2
LIMIT_S = 600.0


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def train(folder: Path, name: str, steps: int, *options: str, more: Sequence[str] = ()) -> int:
    """Run recorded_train in `folder` and return its exit code."""
    settings = (
        *(f"run_dir={folder}/{name}", f"data.train={folder}/shapes/train.json", f"steps={steps}", "eval.samples=0"),
        *(f"data.heldout={folder}/shapes/test.json", f"pacing.groups_per_step={GROUPS_PER_STEP}"),
        *("pacing.staleness=0", "sampling.group_size=4", "learner.export_dtype=float32", "wandb=disabled"),
        "cluster.object_store_gib=0.5",
    )
    command = [sys.executable, "tests/recorded_train.py", f"{folder}/{name}.jsonl", *options]
    command += ["configs/experiment/quickstart.yaml", *settings, *more]
    env = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, timeout=LIMIT_S, env=env, check=False).returncode


def differences(folder: Path, steps: int, killed_in: Sequence[int]) -> list[str]:
    """What differs between a plain loop of `steps` steps and a run that is killed in each of these steps, and resumed
    from a checkpoint of every second step, after which it evaluates. Their records and folders, `plain` and `run`, are
    left in `folder`."""
    make_shapes(folder / "shapes", train=12, val=0, test=2, questions=1, workers=1)
    found = []
    if train(folder, "plain", steps, "--plain"):
        return ["the plain loop failed"]
    resumable = ("checkpoint.every=2", "resume=auto", "eval.every=2", "eval.samples=2")
    for step in killed_in:
        code = train(folder, "run", steps, "--kill-in", str(step), more=resumable)
        if code != -9:
            return [f"the run that was to be killed in step {step} ended with exit code {code}"]
    if train(folder, "run", steps, more=resumable):
        return ["the last resume failed"]
    expected = {line["step"]: line for line in lines(folder / "plain.jsonl")}
    trained = lines(folder / "run.jsonl")
    # A step that was trained, lost and trained again is here several times.
    found += [f"step {line['step']}: batch or loss" for line in trained if line != expected[line["step"]]]
    if sorted({line["step"] for line in trained}) != list(range(1, steps + 1)):
        found.append("steps are missing")
    plain, run = (load_file(folder / name / "model/model.safetensors") for name in ("plain", "run"))
    found += [f"weights: {name}" for name in plain if not equal(plain[name], run[name])]
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        wrong = differences(Path(place), 20, range(3, 20, 3))
    print("\n".join(wrong) or "20 steps, killed in every third and resumed: batches, losses and weights are bit-equal")
    sys.exit(bool(wrong))
