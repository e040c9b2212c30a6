"""The arguments of `ser eval`: scoring recorded completions and result files, and comparing the reports."""

from __future__ import annotations

import argparse
from pathlib import Path

COMPARE = "compare"


def add_eval(command: argparse.ArgumentParser) -> None:
    """Add the arguments of `ser eval BENCH` and `ser eval compare`."""
    command.add_argument("benchmark", metavar="BENCH", help="a benchmark of docs/evaluation.md, or `compare`")
    command.add_argument(
        "reports", nargs="*", type=Path, metavar="REPORT", help="for compare: files that --json printed"
    )
    command.add_argument("--results", type=Path, metavar="FILE", help="a result file (V-STaR)")
    command.add_argument("--mode", metavar="MODE", help="V-STaR: official (default), open_o3 or strict")
    command.add_argument("--boxes", metavar="SPACE", help="V-STaR: as_written (default) or converted")
    command.add_argument("--judge", metavar="JUDGE", help="judge of answers without a recorded score (default exact)")
    command.add_argument("--data", type=Path, metavar="PATH", help="the benchmark's annotation, a file or a folder")
    command.add_argument("--completions", type=Path, metavar="FILE", help="JSON lines: id, text")
    command.add_argument("--protocol", metavar="NAME", help="strict (default) or official")
    command.add_argument("--json", action="store_true", help="print one JSON object with the scores of all samples")
    command.set_defaults(run=_eval)


def _eval(args: argparse.Namespace) -> None:
    from orchestration.commands import eval as command

    options = {
        f"--{name}": getattr(args, name)
        for name in ("results", "mode", "boxes", "judge", "data", "completions", "protocol")
        if getattr(args, name) is not None
    }
    if args.benchmark == COMPARE:
        command.compare(args.reports, options, args.json)
    else:
        command.evaluate(args.benchmark, args.reports, options, args.json)
