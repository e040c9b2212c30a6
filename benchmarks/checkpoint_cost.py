"""What a checkpoint costs: a step that takes one against its neighbours, and how long a resumed run takes to its first
step. Two runs of the quickstart's world, with every process real:

    python -m benchmarks.checkpoint_cost            # about six minutes on two cores

The first run saves a checkpoint after every second step. Its intervals from step to step, which hold the copying out
and whatever the writing in the background costs, are compared in pairs: one with a checkpoint, and the one after it.
At staleness 0, since with more the intervals alternate by themselves. The second run goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

PAIRS, FIRST = 20, 4  # the first steps compile


def lines(run_dir: Path) -> list[dict[str, Any]]:
    path = run_dir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def train(run_dir: Path, *overrides: str) -> float:
    """Run `ser train`. Returns the seconds until it had taken its first step."""
    command = [sys.executable, "-m", "orchestration", "train", "configs/experiment/quickstart.yaml"]
    command += [f"run_dir={run_dir}", "eval.samples=0", "wandb=disabled", "checkpoint.every=2"]
    command += ["pacing.staleness=0", *overrides]
    before, began, first = len(lines(run_dir)), time.monotonic(), None
    with subprocess.Popen(command, stdout=sys.stderr, env={**os.environ, "PYTHONUNBUFFERED": "1"}) as process:
        while process.poll() is None:
            time.sleep(0.05)
            if first is None and len(lines(run_dir)) > before:
                first = time.monotonic() - began
    if process.returncode or first is None:
        raise SystemExit(f"the run ended with exit code {process.returncode}")
    return first


def measure(folder: Path) -> dict[str, Any]:
    run_dir, steps = folder / "run", FIRST + 2 * PAIRS + 2
    fresh_s = train(run_dir, f"steps={steps}")
    run = lines(run_dir)
    ends = [line["seconds"] for line in run]
    intervals = np.diff(ends)  # intervals[n]: from the end of step n + 1 to that of step n + 2
    with_one, without = intervals[FIRST - 1 :: 2][:PAIRS], intervals[FIRST::2][:PAIRS]
    step_s = float(np.median(intervals[FIRST:]))
    resumed_s = train(run_dir, f"steps={steps + 4}", "resume=auto")
    start_s = fresh_s - ends[0]
    return {
        "step_with_checkpoint_over_neighbour": float(np.median(with_one / without)),
        "pairs": len(with_one),
        "step_s": step_s,
        "copy_s": float(np.median([line["checkpoint/copy_s"] for line in run[FIRST:]])),
        "write_s": float(np.median([line["checkpoint/write_s"] for line in run[FIRST:]])),
        "resumed_over_start_and_two_steps": resumed_s / (start_s + ends[0] + 2 * step_s),
        "resumed_s": resumed_s,
        "fresh_s": fresh_s,
    }


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder))))
