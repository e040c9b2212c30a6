"""`ser runs`: a table of the runs in a folder and below it. They are only read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evidence.errors import BadInput
from evidence.plain import dumps
from evidence.visible import visible
from orchestration.reporting.display import cell
from orchestration.run_report.glance import Glance, glance, run_folders
from orchestration.sweeps.state import RUNS, SWEEP, read_state

# What sweep.json says about a run, in the words of the table; it knows exit codes, and jobs of other machines.
OF_SWEEP = {"running": "running", "failed": "failed", "stopped": "interrupted"}


def main(folder: Path, as_json: bool) -> None:
    """Print the table, or one JSON object per run. Raises BadInput for a folder without runs."""
    if not folder.is_dir():
        raise BadInput(f"{folder}: {'is a file' if folder.exists() else 'no such folder'}; give a folder with runs")
    runs = [_by_sweep(glance(path)) for path in run_folders(folder)]
    if not runs:
        raise BadInput(f"{folder}: holds no run of `ser train` or `ser sft`, nor do the folders below it")
    if as_json:
        for run in runs:
            print(dumps(_plain(run, folder)))
        return
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 160)
    console.print(_table(runs, folder))


def _by_sweep(run: Glance) -> Glance:
    """The run's state as its sweep knows it, unless its own folder says that it is running or done. A process that
    runs would hold the folder, so a sweep is believed that only a job of a cluster runs."""
    folder = run.folder.resolve()
    if run.state in ("running", "done") or folder.parent.name != RUNS:
        return run
    try:
        state = read_state(folder.parents[1])
    except BadInput:
        return run
    for record in state.runs if state else ():
        if record.name == folder.name and record.status in OF_SWEEP:
            if record.status == "running" and not record.on_cluster:
                break
            why = f": {record.reason}" if record.reason and record.status != "running" else ""
            return replace(run, state=OF_SWEEP[record.status], how=f"by {SWEEP}{why}")
    return run


def _table(runs: list[Glance], folder: Path) -> Table:
    table = Table()
    for column in ("run", "state", "step", "reward", "written", "state known by"):
        table.add_column(column, justify="right" if column in ("step", "reward", "written") else "left")
    for run in runs:
        step = f"{run.step} of {run.planned}" if run.planned is not None else str(run.step)
        cells = [_name(run, folder), run.state, step, cell(run.reward), _ago(run.age_s), run.how]
        table.add_row(*(Text(visible(text, kept="")) for text in cells))  # no markup, whatever a name or a reason holds
    return table


def _plain(run: Glance, folder: Path) -> dict[str, Any]:
    return {
        "run": _name(run, folder),
        "state": run.state,
        "how": run.how,
        "step": run.step,
        "planned": run.planned,
        "reward": run.reward,
        "age_s": None if run.age_s is None else round(run.age_s, 1),
    }


def _name(run: Glance, folder: Path) -> str:
    return str(run.folder.relative_to(folder)) if run.folder != folder else folder.resolve().name


def _ago(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
