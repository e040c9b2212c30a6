"""`ser report`: one self-contained HTML page about one or several training runs (docs/report.md).

Guarantees: the runs are only read, also while they go on; the page appears whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestration.commands.score import Output
from orchestration.run_report.browser import browse
from orchestration.run_report.charts import charts
from orchestration.run_report.facts import before_after, card
from orchestration.run_report.page import Report, page
from orchestration.run_report.recorded import read_runs
from orchestration.run_report.settings_table import settings_rows


@dataclass(frozen=True)
class Command:
    """The arguments of `ser report`. samples: prompts to embed; None leaves it to the page's size."""

    runs: Sequence[Path]
    out: Output
    samples: int | None


def main(command: Command) -> None:
    """Write the page, and print its path. Raises BadInput."""
    write_report(command)
    print(command.out.path)


def write_report(command: Command) -> None:
    """Write the page. Raises BadInput."""
    command.out.require_writable()
    runs = read_runs(list(command.runs))
    browser = browse(runs, command.samples)
    report = Report(
        cards=[card(run, notes) for run, notes in zip(runs, browser.notes)],
        heldout=[result for index, run in enumerate(runs) for result in before_after(index, run)],
        charts=charts(runs),
        settings=settings_rows(runs),
        browser=browser,
        made=f"Made by ser report on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC. This page loads nothing.",
    )
    command.out.write([page(report)])
