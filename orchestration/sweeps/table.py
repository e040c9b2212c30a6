"""The results of a sweep as tables on the terminal, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestration.reporting.display import cell
from orchestration.sweeps.results import TRAIN_REWARD, Difference, Mean, Result

# The metrics that the terminal shows; the files have all.
SHOWN = {
    TRAIN_REWARD: "training reward",
    "greedy/reward_after": "r_SER",
    "greedy/accuracy_after": "accuracy",
    "greedy/iou_after": "box IoU",
    "greedy/claims_after": "claims",
}
RUN_KEYS = ("run", "arm", "seed", "status", "step", "reason")
WIDTH = 120  # where there is no terminal


@dataclass(frozen=True)
class Tables:
    results: Sequence[Result]
    means: Sequence[Mean]
    differences: Sequence[Difference]

    def plain(self, name: str) -> dict[str, Any]:
        """All of it as plain data."""
        runs = [{key: getattr(run, key) for key in RUN_KEYS} | {"metrics": run.metrics} for run in self.results]
        means, differences = ([_plain(row) for row in rows] for rows in (self.means, self.differences))
        return {"sweep": name, "runs": runs, "arms": means, "differences": differences}

    def csv(self) -> str:
        """One row per run, with all of its metrics."""
        metrics = list(dict.fromkeys(metric for run in self.results for metric in run.metrics))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*RUN_KEYS, *metrics])
        for run in self.results:
            writer.writerow([*(getattr(run, key) for key in RUN_KEYS), *(run.metrics.get(key, "") for key in metrics)])
        return text.getvalue()

    def show(self, console: Console | None = None) -> None:
        """Print the tables: runs, and where there are several seeds or arms, arms and differences."""
        console = console or Console()
        if not console.is_terminal:
            console.width = max(console.width, WIDTH)
        known = {metric for run in self.results for metric in run.metrics}
        shown = {metric: title for metric, title in SHOWN.items() if metric in known}
        console.print(self._runs(shown))
        if any(row.n > 1 for row in self.means):
            console.print(self._arms(shown))
        if self.differences:
            console.print(self._differences(shown))

    def _runs(self, shown: dict[str, str]) -> Table:
        table = _table("runs", ["run", "state", "steps", *shown.values()], text=2)
        for run in self.results:
            values = [cell(run.metrics.get(metric)) for metric in shown]
            table.add_row(run.run, run.status, str(run.step), *values)
        return table

    def _arms(self, shown: dict[str, str]) -> Table:
        table = _table("means over seeds, 95% interval", ["arm", "seeds", *shown.values()])
        for arm in dict.fromkeys(row.arm for row in self.means):
            rows = {row.metric: row for row in self.means if row.arm == arm}
            seeds = max(row.n for row in rows.values())
            cells = [_mean(rows[metric]) if metric in rows else "-" for metric in shown]
            table.add_row(arm, str(seeds), *cells)
        return table

    def _differences(self, shown: dict[str, str]) -> Table:
        baseline = self.differences[0].baseline
        columns = ["arm", "measure", "seeds", "difference", "95%, over seeds", "95%, over clips"]
        table = _table(f"differences from {baseline}, on common seeds", columns, text=2)
        for row in self.differences:
            if row.metric in shown:
                ends = _ends(row.low, row.high), _ends(row.clips_low, row.clips_high)
                table.add_row(row.arm, shown[row.metric], str(row.n), f"{row.difference:+.3f}", *ends)
        return table


def _table(title: str, columns: Sequence[str], text: int = 1) -> Table:
    table = Table(title=title, title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place < text else "right", overflow="fold")
    return table


def _mean(row: Mean) -> str:
    ends = "" if row.low is None or row.high is None else f"\n{row.low:.3f} to {row.high:.3f}"
    return f"{row.mean:.3f}{ends}"


def _ends(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:+.3f} to {high:+.3f}"


def _plain(row: Mean | Difference) -> dict[str, Any]:
    return {part.name: getattr(row, part.name) for part in fields(row)}
