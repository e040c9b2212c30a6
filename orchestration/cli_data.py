"""The arguments of `ser data`: making, checking, showing and converting datasets."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evidence.config_checks import MOST_SEED
from evidence.errors import BadInput

MOST_CLIPS = 1_000_000  # of a split of the embedded world
MOST_SHOWN = 10_000  # samples on one page
MOST_WORKERS = 1024  # processes of one command
SHAPES, VSTAR = "open-o3", "vstar"  # formats of the embedded world


def add_data(command: argparse.ArgumentParser) -> None:
    """Add the commands of `ser data`."""
    commands = command.add_subparsers(required=True, metavar="COMMAND")
    _add_make_shapes(commands.add_parser("make-shapes", help="write the embedded world: clips and questions"))
    _add_check(commands.add_parser("check", help="read a dataset and report its faults"))
    _add_show(commands.add_parser("show", help="write a page with samples as the policy sees them"))
    _add_convert(commands.add_parser("convert", help="write a dataset in another format, if that loses nothing"))


def at_most(most: int) -> Callable[[str], int]:
    """The type of an option that is a whole number of at most `most`; the command checks the lower limit."""

    def whole(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value > most:
            raise argparse.ArgumentTypeError(f"{text}: must be at most {most:,}")
        return value

    return whole


def _add_make_shapes(command: argparse.ArgumentParser) -> None:
    command.add_argument("out", type=Path, help="a new folder")
    for name, default, most, summary in (
        ("train", 2000, MOST_CLIPS, "training clips"),
        ("val", 256, MOST_CLIPS, "validation clips"),
        ("test", 512, MOST_CLIPS, "held-out clips"),
        ("questions", 4, MOST_CLIPS, "most questions about a training clip"),
        ("seed", 0, MOST_SEED, "equal seeds give equal files"),
        ("workers", 2, MOST_WORKERS, "processes"),
    ):
        summary = f"{summary} (default {default})"
        command.add_argument(f"--{name}", type=at_most(most), default=default, metavar="N", help=summary)
    command.add_argument(
        "--format",
        choices=(SHAPES, VSTAR),
        default=SHAPES,
        help="open-o3 (default): where a shape is at a moment; vstar: also when it is in sight, and its boxes",
    )
    command.set_defaults(run=_make_shapes)


def _add_check(command: argparse.ArgumentParser) -> None:
    _add_dataset(command)
    command.add_argument("--media", action="store_true", help="also decode every video and image")
    command.add_argument("--against", type=Path, metavar="TEST", help="a dataset that must share no media with it")
    command.add_argument("--against-format", metavar="FORMAT", help="TEST's format (default: detected)")
    command.add_argument("--against-media-root", type=Path, metavar="DIR", help="the root folder of TEST's media")
    command.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    command.add_argument(
        "--workers", type=at_most(MOST_WORKERS), default=2, metavar="N", help="decoding processes (default 2)"
    )
    command.set_defaults(run=_check)


def _add_show(command: argparse.ArgumentParser) -> None:
    _add_dataset(command)
    command.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="values that override the config's")
    command.add_argument("--model", metavar="DIR", help="the policy's folder (default: the config's)")
    command.add_argument("--config", type=Path, metavar="FILE", help="a run's config, or YAML: contract, template, …")
    chosen = command.add_mutually_exclusive_group()
    chosen.add_argument("--n", type=at_most(MOST_SHOWN), default=8, help="how many samples (default 8)")
    chosen.add_argument("--ids", nargs="+", metavar="ID", help="the samples with these ids")
    command.add_argument("--faulty", action="store_true", help="only samples in which `ser data check` finds faults")
    command.add_argument("--out", type=Path, metavar="DIR", help="a new folder (default runs/shown/DATASET)")
    command.add_argument("--overwrite", action="store_true", help="replace DIR if it holds such a page")
    command.set_defaults(run=_show)


def _add_convert(command: argparse.ArgumentParser) -> None:
    _add_dataset(command)
    command.add_argument("target", type=Path, help="a new file, .jsonl or .json")
    command.add_argument("--to", required=True, metavar="FORMAT", help="the format to write")
    command.set_defaults(run=_convert)


def _add_dataset(command: argparse.ArgumentParser) -> None:
    command.add_argument("dataset", type=Path)
    command.add_argument("--format", help="its format (default: detected from its keys)")
    command.add_argument(
        "--media-root", type=Path, metavar="DIR", help="the root folder of its media (default: its own)"
    )
    add_no_links(command)


def add_no_links(command: argparse.ArgumentParser) -> None:
    command.add_argument("--no-links", action="store_true", help="refuse media that are links out of the root folder")


def _make_shapes(args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from orchestration.preflight import require_folder
    from rollout.dataset.shapes import make_shapes
    from rollout.dataset.shapes_vstar import make_vstar

    make = make_vstar if args.format == VSTAR else make_shapes
    require_folder("out", args.out)
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        bars = {name: progress.add_task(name, total=getattr(args, name)) for name in ("train", "val", "test")}
        counts = make(
            args.out,
            train=args.train,
            val=args.val,
            test=args.test,
            questions=args.questions,
            seed=args.seed,
            workers=args.workers,
            progress=lambda split, done, total: progress.update(bars[split], completed=done, total=total),
        )
    print(f"{args.out}: " + ", ".join(f"{count} {split} samples" for split, count in counts.items()))


def _check(args: argparse.Namespace) -> None:
    from orchestration.commands.data import check_file
    from rollout.dataset.read import DatasetFile

    test = args.against, args.against_format, args.against_media_root, not args.no_links
    if args.against is None and any(test[:3]):
        raise BadInput("--against-format and --against-media-root describe a dataset: name it with --against TEST")
    check_file(_opened(args), args.media, DatasetFile(*test) if args.against else None, args.workers, args.json)


def _show(args: argparse.Namespace) -> None:
    from orchestration.commands.data_show import Choice, Place, default_folder, main

    place = Place(args.out or default_folder(args.dataset), args.overwrite)
    overrides = [f"model={args.model}", *args.overrides] if args.model else args.overrides
    main(_opened(args), Choice(args.n, args.ids, args.faulty), place, args.config, overrides)


def _convert(args: argparse.Namespace) -> None:
    from orchestration.commands.data import convert_file

    convert_file(_opened(args), args.target, args.to)


def _opened(args: argparse.Namespace) -> Any:
    from rollout.dataset.read import DatasetFile

    return DatasetFile(args.dataset, args.format, args.media_root, not args.no_links)
