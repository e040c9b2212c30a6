"""The quickstart under four rewards, three seeds each, side by side: what each teaches, by the same yardsticks.

`ser`, `open_o3` and `accuracy_only`, and `ser` once more by a second referee of another size and seed. Accuracy and box
IoU are yardsticks that no referee has a part in; r_SER is measured by the run's own referee. How far the two referees
agree on what a trained policy writes, `ser calibrate --completions … --second …` says of the runs' held-out files.

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
# 4 minutes of training a run, and half of the held-out clips.
SHORT = ["steps=90", "eval.samples=256"]
RECIPES = {
    "ser": ["reward=ser"],
    "ser, second referee": ["reward=ser", "model.referee=assets/referee-small"],
    "open_o3": ["reward=open_o3"],
    "accuracy_only": ["reward=accuracy_only"],
}
YARDSTICKS = {"reward": "r_SER", "accuracy": "accuracy", "iou": "box IoU", "valid_claim_share": "with a valid claim"}


def table(summaries: dict[str, list[dict[str, Any]]]) -> str:
    """Means over the seeds before and after, greedy, and after them each seed's change."""
    rows = [["reward", *YARDSTICKS.values(), "training, s"], ["---"] * (len(YARDSTICKS) + 2)]
    for name, seeds in summaries.items():
        cells = []
        for key in YARDSTICKS:
            before, after = (np.array([one[f"{key}_{when}"] for one in seeds]) for when in ("before", "after"))
            changes = ", ".join(f"{change:+.3f}" for change in after - before)
            cells.append(f"{before.mean():.3f} → {after.mean():.3f} ({changes})")
        rows.append([name, *cells, f"{np.mean([one['wall_s'] for one in seeds]):.0f}"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="The quickstart under four rewards, three seeds each.")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="for every run, as in `ser train`")
    parser.add_argument("--out", type=Path, default=ROOT / "runs/rewards", help="where the runs lie (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the summaries instead of the table")
    args = parser.parse_args()
    summaries: dict[str, list[dict[str, Any]]] = {name: [] for name in RECIPES}
    for seed in SEEDS:  # all rewards of one seed first, so that a bench cut short still compares
        for name, own in RECIPES.items():
            run_dir = args.out.absolute() / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
            summaries[name].append(finished(run_dir, [*own, *SHORT, f"seed={seed}", *args.overrides]))
    print(json.dumps(summaries, indent=1) if args.json else table(summaries))


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        print(f"reward_recipes: {error}", file=sys.stderr)
        sys.exit(2)
    except subprocess.CalledProcessError as error:
        sys.exit(f"reward_recipes: exit code {error.returncode} from {' '.join(error.cmd)}")
