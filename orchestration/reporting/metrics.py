"""A run's reporting: the one writer of its metrics, and what a person sees while it runs.

Guarantees: each `log` is on disk, as one line of valid JSON, when it returns, so a killed run keeps all it measured;
a resumed run goes on after the step it resumes from; wandb needs no account and no network; on a terminal there is one
live bar, elsewhere (a file, a Ray job) one plain line per step.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import wandb
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as LiveBar
from rich.table import Table

from evidence.files import write_text
from evidence.plain import dumps

WandbMode = Literal["online", "offline", "disabled"]


class RunLog:
    """Writes `run_dir`/metrics.jsonl and, unless disabled, `run_dir`/wandb."""

    def __init__(
        self, run_dir: Path, config: dict[str, Any], wandb_mode: WandbMode = "offline", resumed_from: int = 0
    ) -> None:
        """`config`: the resolved configuration, plain data; wandb shows it beside the curves. `resumed_from`: the step
        of the checkpoint; lines of later steps, which the run will take again, are dropped."""
        run_dir.mkdir(parents=True, exist_ok=True)
        _keep_until(run_dir / "metrics.jsonl", resumed_from)
        self._file = (run_dir / "metrics.jsonl").open("a", encoding="utf-8")
        self._start = time.monotonic()
        self._step = 0
        # Silent, and without wandb's own collectors: the terminal is the bar's, and two cores are all we may have.
        quiet = wandb.Settings(
            silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True, x_disable_meta=True
        )
        # vLLM brings openai along, on seeing which wandb advertises its tracing on the terminal.
        os.environ.setdefault("WANDB_DISABLE_WEAVE", "true")
        self._wandb = wandb.init(
            project="ser", name=run_dir.name, dir=run_dir, config=config, mode=wandb_mode, settings=quiet
        )

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        """Record numbers, strings or nested plain data under `step`; `seconds` since this log was opened is added.

        Numbers that are not finite are written as null, since JSON has none of them.
        Raises ValueError for a step lower than the last one, whose numbers wandb would drop.
        """
        if step < self._step:
            raise ValueError(f"metrics of step {step} come after those of step {self._step}")
        self._step = step
        record = {"step": step, "seconds": round(time.monotonic() - self._start, 3), **metrics}
        self._file.write(dumps(record) + "\n")
        self._file.flush()
        self._wandb.log(metrics, step=step)

    def close(self) -> None:
        self._file.close()
        self._wandb.finish()
        # finish returns before wandb's service has written the file; this waits for it.
        wandb.teardown()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _keep_until(path: Path, step: int) -> None:
    """Drop the lines of steps after `step`, and a last one that a kill cut short."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n") or json.loads(line)["step"] > step:
            break
        kept.append(line)
    write_text(path, "".join(kept))


class Progress:
    """Live progress of `total` steps, of which `done` were made before (a resumed run)."""

    def __init__(self, total: int, done: int = 0, console: Console | None = None) -> None:
        self._console = console or Console()
        self._total, self._done, self._done_before = total, done, done
        self._start = time.monotonic()
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
        """Step `step` of `total` has ended. `facts`: what to show beside it, as in "reward 0.41  staleness 0.9"."""
        self._done = step
        per_step = (time.monotonic() - self._start) / max(1, self._done - self._done_before)
        facts = f"{facts}  {_clock(per_step * (self._total - self._done))} left"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=facts)
        else:
            self._console.print(f"step {step}/{self._total}  {facts}", highlight=False, soft_wrap=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def print_summary(summary: dict[str, Any], run_dir: Path, console: Console | None = None) -> None:
    """The short table at the end of a run, and where everything lies. `summary`: the content of summary.json."""
    console = console or Console()
    if "reward_ci95" in summary:
        _print_comparison(summary, console)
    console.print(
        f"{summary['trained_groups']} groups trained in {_clock(summary['wall_s'])}; staleness mean"
        f" {summary['staleness_mean']:.2f}, worst {summary['staleness_max']}, bound {summary['staleness_bound']}"
        f"\n{run_dir}",
        highlight=False,
        soft_wrap=True,
    )


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
            *(_cell(summary[f"{key}_{when}"]) for when in ("before", "after")),
            f"{interval[0]:+.3f} to {interval[1]:+.3f}" if interval else "",
        )
    console.print(table)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
