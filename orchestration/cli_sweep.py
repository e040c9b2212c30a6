"""The arguments of the commands on many runs and on clusters: `ser submit`, `ser sweep` and `ser runs`."""

from __future__ import annotations

import argparse
from pathlib import Path

from orchestration.cli_data import at_most
from orchestration.sweeps.settings import MOST_PARALLEL

ADDRESS = "the dashboard of a Ray cluster, as http://127.0.0.1:8265"


def add_submit(command: argparse.ArgumentParser) -> None:
    _add_file(command, "a config of `ser train`", "values that override the file's")
    command.add_argument("--address", metavar="URL", help=f"{ADDRESS} (default: RAY_API_SERVER_ADDRESS, or this)")
    command.add_argument("--follow", action="store_true", help="print the job's output until it ends")
    command.set_defaults(run=_submit)


def add_sweep(command: argparse.ArgumentParser) -> None:
    _add_file(command, "a sweep", "values of every run, beside `fixed` of the file")
    command.add_argument("--address", metavar="URL", help=f"run Ray jobs on {ADDRESS} (default: processes here)")
    command.add_argument("--dir", type=Path, metavar="DIR", help="the sweep's folder (default: the file's sweep_dir)")
    command.add_argument(
        "--parallel", type=at_most(MOST_PARALLEL), metavar="N", help="runs at once (default: as the file says)"
    )
    what = command.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="list the runs, and whether their configs are valid")
    what.add_argument("--results", action="store_true", help="show the results so far, and start nothing")
    what.add_argument("--retry-failed", action="store_true", help="start failed runs again")
    command.add_argument("--json", action="store_true", help="print one JSON value instead of tables")
    command.set_defaults(run=_sweep)


def add_runs(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", type=Path, metavar="DIR", help="a folder with runs in it or below it")
    command.add_argument("--json", action="store_true", help="print one JSON object per run")
    command.set_defaults(run=_runs)


def _add_file(command: argparse.ArgumentParser, file: str, overrides: str) -> None:
    command.add_argument("config", metavar="CONFIG", help=f"{file}, or the name of one that comes with ser")
    command.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=overrides)


def _submit(args: argparse.Namespace) -> None:
    from orchestration.commands import submit
    from orchestration.config import recipe_file

    submit.main(recipe_file("experiment", args.config, "ser submit"), args.overrides, args.address, args.follow)


def _sweep(args: argparse.Namespace) -> None:
    from orchestration.commands.sweep import Command, main
    from orchestration.config import recipe_file

    main(
        Command(
            file=recipe_file("sweep", args.config, "ser sweep"),
            overrides=args.overrides,
            sweep_dir=args.dir,
            parallel=args.parallel,
            address=args.address,
            dry_run=args.dry_run,
            results=args.results,
            retry_failed=args.retry_failed,
            as_json=args.json,
        )
    )


def _runs(args: argparse.Namespace) -> None:
    from orchestration.commands import runs

    runs.main(args.folder, args.json)
