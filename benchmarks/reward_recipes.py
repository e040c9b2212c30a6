"""Runs the quickstart with five rewards and three seeds each, and compares the results by the same metrics.

The rewards are `ser`, `open_o3` in two forms (as released, and with its spatial term divided by the boxes written) and
`accuracy_only`, and `ser` with a second referee of another size and seed. Accuracy and box IoU do not depend on a
referee; r_SER is measured by the run's own referee. `ser calibrate --completions … --second …` on the runs' held-out
files measures how far the two referees agree on a trained policy's claims.

Guarantees: those of benchmarks/quickstart_seeds.py.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quickstart_seeds import ROOT, finished
from evidence.errors import BadInput

SEEDS = (0, 1, 2)
# 4 minutes of training per run, and half of the held-out clips.
SHORT = ["steps=90", "eval.samples=256"]
RECIPES = {
    "ser": ["reward=ser"],
    "ser, second referee": ["reward=ser", "model.referee=assets/referee-small"],
    "open_o3": ["reward=open_o3"],
    "open_o3, per box": ["reward=open_o3", "reward.terms.thk_spatial.options.per=box"],
    "accuracy_only": ["reward=accuracy_only"],
}
METRICS = {"reward": "r_SER", "accuracy": "accuracy", "iou": "box IoU", "valid_claim_share": "with a valid claim"}


def table(summaries: dict[str, list[dict[str, Any]]]) -> str:
    """Greedy means over the seeds before and after training, followed by the change of each seed."""
    rows = [["reward", *METRICS.values(), "training, s"], ["---"] * (len(METRICS) + 2)]
    for name, seeds in summaries.items():
        cells = []
        for key in METRICS:
            before, after = (np.array([s[f"{key}_{when}"] for s in seeds]) for when in ("before", "after"))
            changes = ", ".join(f"{change:+.3f}" for change in after - before)
            cells.append(f"{before.mean():.3f} → {after.mean():.3f} ({changes})")
        rows.append([name, *cells, f"{np.mean([s['wall_s'] for s in seeds]):.0f}"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="The quickstart with five rewards, three seeds each.")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="for every run, as in `ser train`")
    parser.add_argument("--out", type=Path, default=ROOT / "runs/rewards", help="folder of the runs (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the summaries instead of the table")
    args = parser.parse_args()
    summaries: dict[str, list[dict[str, Any]]] = {name: [] for name in RECIPES}
    for seed in SEEDS:  # all rewards of one seed first, so that an interrupted benchmark still compares them
        for name, recipe in RECIPES.items():
            run_dir = args.out.absolute() / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
            summaries[name].append(finished(run_dir, [*recipe, *SHORT, f"seed={seed}", *args.overrides]))
    print(json.dumps(summaries, indent=1) if args.json else table(summaries))


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        print(f"reward_recipes: {error}", file=sys.stderr)
        sys.exit(2)
    except subprocess.CalledProcessError as error:
        sys.exit(f"reward_recipes: exit code {error.returncode} from {' '.join(error.cmd)}")
