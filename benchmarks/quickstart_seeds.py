"""Runs the quickstart with three seeds and, as a control, with rewards shuffled within each group; prints one table.

Guarantees: runs are sequential, each `ser train` in its own process; a finished run is not repeated, an unfinished one
is started again; a finished run with another configuration than the requested one is refused, not reported.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from evidence.errors import BadInput
from orchestration.config import load_config
from orchestration.settings import TrainConfig

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs/experiment/quickstart.yaml"
RUNS = {
    "seed-0": ["seed=0"],
    "seed-1": ["seed=1"],
    "seed-2": ["seed=2"],
    "control": ["shuffle_rewards=true"],
}
INTERVALS = ("reward", "accuracy", "iou")
PAIRS = ("claims", "valid_claim_share", "box_area")
HEADER = (
    "run",
    "drawn",
    "r_SER (95% interval of the difference)",
    "accuracy",
    "box IoU",
    "claims",
    "with a valid claim",
    "box area",
    "staleness mean / max / bound",
    "wall, s",
)


def finished(run_dir: Path, overrides: list[str]) -> dict[str, Any]:
    """summary.json of the quickstart with these overrides, which is run unless it is finished already. Raises
    BadInput if `run_dir` holds a run of another configuration."""
    wanted = [*overrides, f"run_dir={run_dir}"]
    config = load_config(TrainConfig, CONFIG, wanted)
    file = run_dir / "summary.json"
    if file.is_file():
        if load_config(TrainConfig, run_dir / "config.yaml") != config:
            raise BadInput(
                f"{run_dir}: its config.yaml differs from the requested one; remove it or name another --out"
            )
    else:
        if run_dir.exists():
            print(f"{run_dir}: was not finished, starts again", file=sys.stderr)
            shutil.rmtree(run_dir)
        command = [sys.executable, "-m", "orchestration", "train", str(CONFIG), *wanted]
        subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=True)
    return json.loads(file.read_text(encoding="utf-8"))


def rows(name: str, summary: dict[str, Any]) -> list[list[str]]:
    """Two rows of the table: greedy, and at the training temperature."""
    table = []
    for drawn, part in (("greedy", summary), ("sampled", summary["sampled"])):
        table.append(
            [
                name,
                drawn,
                *(f"{_change(part, key)} ({_interval(part[f'{key}_ci95'])})" for key in INTERVALS),
                *(_change(part, key) for key in PAIRS),
                f"{summary['staleness_mean']:.2f} / {summary['staleness_max']} / {summary['staleness_bound']}",
                f"{summary['wall_s']:.0f}",
            ]
        )
    return table


def _change(part: dict[str, Any], key: str) -> str:
    before, after = (part[f"{key}_{when}"] for when in ("before", "after"))
    return " → ".join("-" if value is None else f"{value:.3f}" for value in (before, after))


def _interval(ends: list[float] | None) -> str:
    return "-" if ends is None else f"{ends[0]:+.3f} to {ends[1]:+.3f}"


def markdown(summaries: dict[str, dict[str, Any]]) -> str:
    table = [list(HEADER), ["---"] * len(HEADER)]
    for name, summary in summaries.items():
        table += rows(name, summary)
    return "\n".join(f"| {' | '.join(row)} |" for row in table)


def main() -> None:
    parser = argparse.ArgumentParser(description="The quickstart with three seeds, and its control.")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="for every run, as in `ser train`")
    parser.add_argument("--out", type=Path, default=ROOT / "runs/seeds", help="folder of the runs (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the summaries instead of the table")
    args = parser.parse_args()
    summaries = {name: finished(args.out.absolute() / name, [*run, *args.overrides]) for name, run in RUNS.items()}
    print(json.dumps(summaries, indent=1) if args.json else markdown(summaries))


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        print(f"quickstart_seeds: {error}", file=sys.stderr)
        sys.exit(2)
    except subprocess.CalledProcessError as error:
        sys.exit(f"quickstart_seeds: exit code {error.returncode} from {' '.join(error.cmd)}")
