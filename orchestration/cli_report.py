"""The arguments of `ser report`."""

from __future__ import annotations

import argparse
from pathlib import Path

from evidence.errors import BadInput
from orchestration.cli_data import at_most

PAGE = Path("report.html")
MOST_SAMPLES = 100_000


def add_report(command: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    command.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs of `ser train`")
    command.add_argument("--out", type=Path, default=PAGE, metavar="FILE", help="the page (default %(default)s)")
    command.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    command.add_argument(
        "--samples",
        type=at_most(MOST_SAMPLES),
        metavar="N",
        help="recorded prompts to embed (default: 48, fewer if the page would exceed 20 MB)",
    )
    command.set_defaults(run=_report)


def _report(args: argparse.Namespace) -> None:
    from orchestration.commands.report import Command, main
    from orchestration.commands.score import Output

    if args.samples is not None and args.samples < 0:
        raise BadInput(f"--samples {args.samples}: must be 0 or more")
    main(Command(args.runs, Output(args.out, args.overwrite), args.samples))
