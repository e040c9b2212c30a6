"""The arguments of `ser answer` and `ser serve`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def add_answer(command: argparse.ArgumentParser) -> None:
    """Add the arguments of `ser answer`."""
    command.add_argument("video", help="a video, a folder of its frames, or an image")
    command.add_argument("question", help="what to ask about it")
    _add_models(command)
    command.add_argument("--fps", type=float, metavar="N", help="frames per second of a folder of frames")
    command.add_argument(
        "--elect", metavar="METHOD", help="elect one of several candidates: rler, majority, … (docs/election.md)"
    )
    command.add_argument("--out", type=Path, metavar="FILE", help="write a page with the evidence, as HTML")
    command.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=_answer)


def add_serve(command: argparse.ArgumentParser) -> None:
    """Add the arguments of `ser serve`."""
    _add_models(command)
    command.add_argument(
        "--root", type=Path, default=Path(), metavar="DIR", help="only files in it are read (default .)"
    )
    command.add_argument("--host", default="127.0.0.1", help="the address to listen on (default 127.0.0.1)")
    command.add_argument("--port", type=int, default=8000, help="0 for a free one (default 8000)")
    command.add_argument("--token-env", metavar="NAME", help="the environment variable with the clients' token")
    command.set_defaults(run=_serve)


def _add_models(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", required=True, metavar="DIR", help="the policy's folder")
    command.add_argument("--referee", metavar="DIR", help="a referee's folder, to judge the evidence")
    command.add_argument(
        "--config", type=Path, metavar="FILE", help="a run's config.yaml, or YAML: contract, template, election, …"
    )
    command.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="values that override the file's")


def _overrides(args: argparse.Namespace) -> Sequence[str]:
    """The models come first, so that a section such as judge.calibration adds to them."""
    judge = [f"judge.model={args.referee}"] if args.referee else []
    return [f"model={args.model}", *judge, *args.overrides]


def _answer(args: argparse.Namespace) -> None:
    from orchestration.commands.answer import Command, main
    from orchestration.commands.score import Output

    command = Command(args.video, args.question, args.elect, Output(args.out, args.overwrite), args.json, args.fps)
    main(command, args.config, _overrides(args))


def _serve(args: argparse.Namespace) -> None:
    from orchestration.commands.serve import main
    from orchestration.serving.server import Address

    main(Address(args.host, args.port, args.token_env), args.root, args.config, _overrides(args))
