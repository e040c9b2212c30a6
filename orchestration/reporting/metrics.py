"""A run's metrics, with one writer, and its terminal output.

Guarantees: when `log` returns, its record is on disk as one line of valid JSON, so a killed run keeps all it measured;
a full disk ends no run and is counted (evidence/lines); a resumed run continues after the step it resumes from; wandb
needs no account and, offline, no network, and its failures end no run (wandb_log); the progress is one live bar on a
terminal and one plain line per step elsewhere (a file, a Ray job), where the wait for the first step is announced.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as LiveBar
from rich.table import Table

from evidence.lines import AppendedLines
from evidence.plain import dumps
from orchestration.reporting.awaiting import awaiting
from orchestration.reporting.display import cell, clock
from orchestration.reporting.histograms import Histogram
from orchestration.reporting.media import Picture
from orchestration.reporting.wandb_log import WandbLog
from orchestration.settings import WandbMode


class RunLog:
    """Writes `run_dir`/metrics.jsonl and, unless disabled, `run_dir`/wandb."""

    def __init__(
        self,
        run_dir: Path,
        config: dict[str, Any],
        wandb_mode: WandbMode = "offline",
        resumed_from: int = 0,
        seconds: float = 0.0,
        wandb_id: str | None = None,
        group: str = "",
        tags: Sequence[str] = (),
    ) -> None:
        """`config`: the resolved configuration as plain data; wandb shows it beside the curves. `resumed_from`: the
        step of the checkpoint; lines of later steps are dropped, since the run will repeat those steps. `seconds`: the
        duration of the run until then. `wandb_id`: of the run to go on with in wandb. `group`, `tags`: of the
        run there."""
        run_dir.mkdir(parents=True, exist_ok=True)
        self._run_dir, self._resumed_from = run_dir, resumed_from
        self._files: list[AppendedLines] = []
        self._lines = self.add_file("metrics.jsonl")
        self._start = time.monotonic() - seconds
        self._step = resumed_from
        self._wandb = WandbLog(run_dir, config, wandb_mode, wandb_id, group, tags)

    @property
    def seconds(self) -> float:
        """The duration of the run, the time before it was resumed included."""
        return time.monotonic() - self._start

    @property
    def wandb_id(self) -> str | None:
        return self._wandb.id

    def add_file(self, name: str) -> AppendedLines:
        """A file of JSON lines in the run directory, each with its `step`. This log drops the lines of steps that the
        run will repeat, counts the file's failures and closes it."""
        lines = AppendedLines(self._run_dir / name)
        lines.keep(lambda record: record["step"] <= self._resumed_from)
        self._files.append(lines)
        return lines

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        """Record numbers, strings, histograms or nested plain data under `step`, with the `seconds` since this log
        was opened, and how writing its files has failed so far.

        Numbers that are not finite are written as null: JSON cannot represent them.
        Raises ValueError for a step below the last one.
        """
        if step < self._step:
            raise ValueError(f"metrics of step {step} come after those of step {self._step}")
        self._step = step
        metrics = metrics | {
            "disk/failed_writes": sum(lines.failed for lines in self._files),
            "disk/waiting_lines": sum(lines.waiting for lines in self._files),
            "disk/wandb_failed": self._wandb.failed,
        }
        metrics = {"seconds": round(self.seconds, 3), **metrics}
        plain = {name: asdict(value) if isinstance(value, Histogram) else value for name, value in metrics.items()}
        self._lines.write([dumps({"step": step, **plain})])
        self._wandb.log(step, metrics)

    @property
    def path(self) -> Path:
        """The file of the metrics."""
        return self._lines.path

    @property
    def shows_media(self) -> bool:
        return self._wandb.mode != "disabled"

    def show(self, step: int, pictures: Sequence[Picture], rows: Sequence[Sequence[Any]]) -> None:
        """Show frames with their boxes, and rows of a table with media.COLUMNS, in wandb."""
        self._wandb.log(step, {"samples/frames": pictures, "samples/table": rows})

    def alert(self, title: str, text: str) -> None:
        """Raise an alert in wandb."""
        self._wandb.alert(title, text)

    def pass_on(self, step: int, metrics: dict[str, Any]) -> None:
        """Pass metrics of a step to wandb alone, also of an earlier step than the last one."""
        self._wandb.log(step, metrics)

    def sync(self) -> bool:
        """Wait until all files are on disk, so that they survive a power failure. Returns whether they are, whole."""
        written = [lines.sync() for lines in self._files]
        return all(written)

    def close(self) -> None:
        try:
            with ExitStack() as closing:
                for lines in self._files:
                    closing.callback(lines.close)
        finally:
            self._wandb.close()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Progress:
    """Live progress of `total` steps, the first `done` of which were taken before this run resumed."""

    def __init__(self, total: int, done: int = 0, console: Console | None = None) -> None:
        self._console = console or Console()
        self._total, self._done, self._done_before = total, done, done
        self._start = time.monotonic()
        self._until_first_step = ExitStack()
        self._bar: LiveBar | None = None
        if self._console.is_terminal:
            self._bar = LiveBar(
                TextColumn("step"),
                MofNCompleteColumn(),
                BarColumn(),
                TextColumn("{task.description}"),
                console=self._console,
            )
            self._task = self._bar.add_task("starting", total=total, completed=done)
            self._bar.start()

    def update(self, step: int, facts: str) -> None:
        """Show that step `step` has ended. `facts`: text to show beside it, such as "reward 0.41  staleness 0.9"."""
        self._until_first_step.close()
        self._done = step
        per_step = (time.monotonic() - self._start) / max(1, self._done - self._done_before)
        facts = f"{facts}  {clock(per_step * (self._total - self._done))} left"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=facts)
        else:
            self._console.print(f"step {step}/{self._total}  {facts}", highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._until_first_step.close()
        if self._bar is not None:
            self._bar.stop()

    def __enter__(self) -> Progress:
        if self._bar is None:
            self._until_first_step.enter_context(awaiting("the first step"))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def print_summary(summary: dict[str, Any], run_dir: Path, console: Console | None = None) -> None:
    """Print the table at the end of a run, and the run's folder. `summary`: the content of summary.json."""
    console = console or Console()
    if "reward_ci95" in summary:
        _print_comparison(summary, console)
    if (best := summary.get("best_checkpoint")) is not None:
        checkpoint = f"best checkpoint: step {best['step']}, {best['metric']} {best['value']:.3f}"
        console.print(checkpoint, highlight=False, soft_wrap=True)
    console.print(
        f"{summary['trained_groups']} groups trained in {clock(summary['wall_s'])}; staleness mean"
        f" {summary['staleness_mean']:.2f}, worst {summary['staleness_max']}, bound {summary['staleness_bound']}"
        f"\n{run_dir}",
        highlight=False,
        soft_wrap=True,
    )
    if summary.get("bound"):
        console.print(summary["bound"], highlight=False, soft_wrap=True)


def _print_comparison(summary: dict[str, Any], console: Console) -> None:
    table = Table(title="held-out clips")
    for column in ("", "before", "after", "change, 95% interval"):
        table.add_column(column, justify="right" if column else "left")
    for label, key in (
        ("evidence reward (r_SER)", "reward"),
        ("answer accuracy", "accuracy"),
        ("box IoU", "iou"),
        ("claims per completion", "claims"),
        ("box area, share of frame", "box_area"),
        ("completions with a valid claim", "valid_claim_share"),
    ):
        interval = summary.get(f"{key}_ci95")
        table.add_row(
            label,
            *(cell(summary[f"{key}_{when}"]) for when in ("before", "after")),
            f"{interval[0]:+.3f} to {interval[1]:+.3f}" if interval else "",
        )
    console.print(table)
