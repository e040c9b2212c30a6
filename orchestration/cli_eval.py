"""The arguments of `ser eval`: running a model, scoring recorded completions and result files, comparing reports."""

from __future__ import annotations

import argparse
from pathlib import Path

from evidence.config_checks import MOST
from orchestration.cli_data import at_most

COMPARE = "compare"
OPTIONS = (
    *("results", "mode", "boxes", "judge", "judge_model", "judge_key_env", "data", "completions", "protocol"),
    *("model", "videos", "subtitles", "config", "limit", "out", "rescore"),
)


def add_eval(command: argparse.ArgumentParser) -> None:
    """Add the arguments of `ser eval BENCH` and `ser eval compare`."""
    command.add_argument("benchmark", metavar="BENCH", help="a benchmark of docs/evaluation.md, or `compare`")
    command.add_argument(
        "overrides",
        nargs="*",
        metavar="REPORT or KEY=VALUE",
        help="for compare: files that --json printed; with --model: values that override the config's",
    )
    command.add_argument("--model", metavar="DIR", help="run this model on the benchmark")
    command.add_argument("--data", type=Path, metavar="PATH", help="the benchmark's annotation, a file or a folder")
    command.add_argument("--videos", type=Path, metavar="DIR", help="the folder of the videos (default: of the data)")
    command.add_argument("--subtitles", type=Path, metavar="DIR", help="ask with the subtitles in this folder")
    command.add_argument("--config", type=Path, metavar="FILE", help="a run's config.yaml, or YAML for the model")
    command.add_argument("--limit", type=at_most(MOST), metavar="N", help="only the first N questions")
    command.add_argument("--out", type=Path, metavar="DIR", help="the record (default runs/eval/BENCH-MODEL)")
    command.add_argument("--rescore", type=Path, metavar="DIR", help="score this record again; no model is run")
    command.add_argument("--completions", type=Path, metavar="FILE", help="JSON lines: id, text")
    command.add_argument("--results", type=Path, metavar="FILE", help="a result file (V-STaR)")
    command.add_argument("--protocol", metavar="NAME", help="strict (default) or official")
    command.add_argument("--mode", metavar="MODE", help="V-STaR: official (default), open_o3 or strict")
    command.add_argument("--boxes", metavar="SPACE", help="V-STaR: as_written (default) or converted")
    command.add_argument("--judge", metavar="JUDGE", help="exact (default), the URL of an endpoint, or vllm:DIR")
    command.add_argument("--judge-model", metavar="NAME", help="the name under which the endpoint serves the judge")
    command.add_argument("--judge-key-env", metavar="NAME", help="the environment variable that holds its key")
    command.add_argument("--json", action="store_true", help="print one JSON object with the scores of all samples")
    command.set_defaults(run=_eval)


def _eval(args: argparse.Namespace) -> None:
    from orchestration.commands import eval as command

    options = {
        f"--{name.replace('_', '-')}": getattr(args, name) for name in OPTIONS if getattr(args, name) is not None
    }
    if args.benchmark == COMPARE:
        command.compare(args.overrides, options, args.json)
    else:
        command.evaluate(args.benchmark, args.overrides, options, args.json)
