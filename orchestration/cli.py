"""The command line: `ser …`, or `python -m orchestration …`.

Exit codes: 0 done; 1 failed run, or output that cannot be written; 2 bad input. Failures are reported in one line on
stderr, and never as a stack trace. Each command imports its dependencies when it runs, so that light commands start
fast. Only `main` reads sys.argv.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from evidence.config_checks import MOST
from evidence.errors import INTERRUPTED, BadInput, Interrupted, RunFailed
from learner.settings import DTYPES
from orchestration.cli_answer import add_answer, add_serve
from orchestration.cli_data import add_data, add_no_links, at_most
from orchestration.cli_eval import add_eval
from orchestration.cli_report import add_report
from orchestration.cli_sweep import add_runs, add_submit, add_sweep
from orchestration.commands.elect import add_elect
from orchestration.planning.gpus import GPUS
from orchestration.streams import (
    described,
    flush_stderr,
    guarded_stdout,
    is_failed_output,
    open_streams,
    print_any_text,
    say,
)

# Commands that take a config: the module whose `main` does the work, the config's schema, and its folder in configs/.
CONFIGURED = {
    "train": ("orchestration.train", "orchestration.settings:TrainConfig", "experiment"),
    "sft": ("orchestration.commands.sft", "orchestration.commands.sft:SftConfig", "sft"),
    "calibrate": ("orchestration.commands.calibrate", "orchestration.commands.calibrate:CalibrateConfig", "calibrate"),
}
MOST_GPUS = 4096
LASTING = [["train"], ["sft"], ["sweep"]]  # the first argument of commands that go on when stdout fails


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. `argv`: without the program's name; None uses sys.argv."""
    print_any_text()
    try:
        open_streams()
        _run(sys.argv[1:] if argv is None else argv)
    except Interrupted as error:
        say(f"ser: {error}")
        return INTERRUPTED
    except (BadInput, RunFailed) as error:
        # Ray wraps an actor's error: the text of the wrapper holds the actor's stack trace, its cause does not.
        say(f"ser: {getattr(error, 'cause', error)}")
        return 2 if isinstance(error, BadInput) else 1
    except OSError as error:
        cause = getattr(error, "cause", error)
        if not is_failed_output(cause):
            raise
        say(f"ser: {described(cause)}")
        return 1
    except UnicodeEncodeError as error:
        say(f"ser: {error.object!r:.200}: this locale ({error.encoding}) cannot encode it; set PYTHONUTF8=1")
        return 2
    except KeyboardInterrupt:
        say("ser: interrupted")
        return 1
    finally:
        flush_stderr()
    return 0


def _run(argv: Sequence[str]) -> None:
    with guarded_stdout(lasting=list(argv[:1]) in LASTING):
        args = _parsed(argv)
        args.run(args)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message}; see {self.prog} --help")


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments. argparse leaves over the overrides that follow an option; they are appended to the others."""
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if rest and (not hasattr(args, "overrides") or any(text.startswith("-") for text in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        args.overrides = [*args.overrides, *rest]
    return args


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="ser", description="Semantic Evidence Reward: train video models to give evidence.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, summary in (("train", "train with the evidence reward"), ("sft", "train on labelled completions")):
        command = commands.add_parser(name, help=summary)
        _add_config(command)
        command.set_defaults(run=_run_configured, command=name, warm_start=None)
        if name == "train":
            command.add_argument("--warm-start", metavar="CONFIG", help="run this config of `ser sft` before")
    add_submit(commands.add_parser("submit", help="train as a job of a Ray cluster (docs/cluster.md)"))
    add_sweep(commands.add_parser("sweep", help="train many runs, and compare them (docs/sweeps.md)"))
    _add_calibrate(commands.add_parser("calibrate", help="measure how reliable a referee is (docs/calibration.md)"))
    _add_print_config(commands.add_parser("config", help="print a resolved config"))
    _add_plan(commands.add_parser("plan", help="memory and time of a training, beforehand (docs/planning.md)"))
    _add_score(commands.add_parser("score", help="reward recorded completions, one JSON line each"))
    add_answer(commands.add_parser("answer", help="answer a question about a video (docs/answering.md)"))
    add_serve(commands.add_parser("serve", help="answer questions over HTTP (docs/answering.md)"))
    add_elect(commands.add_parser("elect", help="elect one answer among recorded candidates (docs/election.md)"))
    add_eval(commands.add_parser("eval", help="run a benchmark, or score recorded answers (docs/evaluation.md)"))
    _add_export(commands.add_parser("export", help="write a checkpoint as a Hugging Face folder (docs/checkpoints.md)"))
    _add_ledger(commands.add_parser("ledger", help="what became of every prompt of a run (docs/checkpoints.md)"))
    add_report(commands.add_parser("report", help="an HTML page about training runs (docs/report.md)"))
    add_runs(commands.add_parser("runs", help="a table of the runs in a folder (docs/sweeps.md)"))
    _add_doctor(commands.add_parser("doctor", help="list what this machine has and what a run would miss"))
    add_data(commands.add_parser("data", help="make, check, show and convert datasets"))
    return parser


def _add_calibrate(command: argparse.ArgumentParser) -> None:
    command.add_argument("--attacks", action="store_true", help="try to fool it instead, and print the gains")
    command.add_argument("--ratings", type=Path, metavar="CSV", help="human ratings of claims about the data")
    command.add_argument("--completions", type=Path, metavar="JSONL", help="recorded completions to take claims from")
    command.add_argument("--second", metavar="FOLDER", help="another referee to compare with the first")
    command.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    _add_config(command)
    command.set_defaults(run=_calibrate, command="calibrate")


def _add_print_config(command: argparse.ArgumentParser) -> None:
    _add_config(command)
    command.add_argument(
        "--for", dest="command", choices=CONFIGURED, default="train", help="the command that takes it (default train)"
    )
    command.set_defaults(run=_print_config)


def _add_plan(command: argparse.ArgumentParser) -> None:
    command.add_argument("--gpus", type=at_most(MOST_GPUS), metavar="N", help="GPUs (default: as the config uses)")
    command.add_argument("--gpu", choices=GPUS, default=next(iter(GPUS)), help="of which kind (default %(default)s)")
    command.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    _add_config(command)
    command.set_defaults(run=_plan, command="train")


def _add_doctor(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", nargs="?", metavar="CONFIG", help="a config of `ser train` to judge by")
    command.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="values that override the file's")
    command.set_defaults(run=_doctor, command="train")


def _add_score(command: argparse.ArgumentParser) -> None:
    command.add_argument("--reward", required=True, metavar="NAME", help="a recipe of configs/reward, or a YAML file")
    command.add_argument("--samples", required=True, type=Path, metavar="FILE", help="the dataset they are about")
    command.add_argument("--completions", required=True, type=Path, metavar="FILE", help="JSON lines: id, text, …")
    command.add_argument("--format", help="the samples' format (default: detected from their keys)")
    command.add_argument("--media-root", type=Path, metavar="DIR", help="the root folder of the samples' media")
    add_no_links(command)
    command.add_argument("--referee", metavar="MODEL", help="a model folder, for a recipe that uses a referee")
    command.add_argument(
        "--config", type=Path, metavar="FILE", help="a run's config.yaml, or YAML: contract, template, verification, …"
    )
    command.add_argument("--progress", type=float, default=1.0, metavar="0..1", help="training progress (default 1)")
    command.add_argument("--out", type=Path, metavar="FILE", help="write the lines to FILE instead of stdout")
    command.add_argument("--overwrite", action="store_true", help="replace FILE if it exists, once all is scored")
    command.set_defaults(run=_score)


def _add_ledger(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", type=Path, metavar="RUN", help="a run's folder")
    command.add_argument("--json", action="store_true", help="print one JSON object per group")
    command.set_defaults(run=_ledger)


def _add_export(command: argparse.ArgumentParser) -> None:
    command.add_argument("checkpoint", type=Path, metavar="FOLDER", help="a run's folder, or one of its checkpoints")
    command.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="a new folder")
    command.add_argument("--step", type=at_most(MOST), metavar="N", help="the checkpoint's step (default: the newest)")
    command.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="dtype of the weights (default bfloat16)")
    command.add_argument("--ema", action="store_true", help="export the moving average of the weights, if kept")
    command.set_defaults(run=_export)


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", metavar="CONFIG", help="a YAML file, or the name of one that comes with ser")
    command.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="values that override the file's")


def _schema(command: str) -> Any:
    module, schema = CONFIGURED[command][1].split(":")
    return getattr(import_module(module), schema)


def _load(args: argparse.Namespace) -> Any:
    from orchestration.config import load_config, recipe_file

    config = recipe_file(CONFIGURED[args.command][2], args.config, f"ser {args.command}")
    if args.command == "calibrate":
        from orchestration.commands.run_files import is_run_config, run_for_calibration

        if is_run_config(config):
            return load_config(_schema(args.command), run_for_calibration(config), args.overrides)
    _require_own_config(config, args.command)
    return load_config(_schema(args.command), config, args.overrides)


def _require_own_config(config: Path, command: str) -> None:
    """Raises BadInput for a config that has fewer unknown keys as one of another command."""
    from orchestration.config import unknown_keys

    unknown = unknown_keys(_schema(command), config)
    if unknown:
        of_command = {other: len(unknown_keys(_schema(other), config)) for other in CONFIGURED}
        closest = min(of_command, key=lambda other: of_command[other])
        if of_command[closest] < len(unknown):
            raise BadInput(
                f"{config}: is a config of `ser {closest}`, not of `ser {command}`, which has no {', '.join(unknown)}; "
                f"`ser {closest}` and `ser config --for {closest}` take it"
            )


def _run_configured(args: argparse.Namespace) -> None:
    if args.warm_start:
        _train_after_warm_start(args)
        return
    config = _load(args)
    import_module(CONFIGURED[args.command][0]).main(config)


def _train_after_warm_start(args: argparse.Namespace) -> None:
    from orchestration.commands import warm_start
    from orchestration.config import recipe_file

    def load(policy: str) -> Any:
        return _load(argparse.Namespace(**vars(args) | {"overrides": [*args.overrides, f"model.policy={policy}"]}))

    file = recipe_file(CONFIGURED["sft"][2], args.warm_start, "--warm-start")
    warm_start.main(file, args.overrides, load)


def _calibrate(args: argparse.Namespace) -> None:
    if args.attacks:
        if args.ratings or args.completions or args.second:
            raise BadInput(
                "--attacks makes its own claims for one referee; leave out --ratings, --completions and --second"
            )
        from orchestration.commands import attack

        attack.main(_load(args), args.json)
        return
    if args.ratings and args.completions:
        raise BadInput("--ratings and --completions both supply the claims; give one of them")
    from orchestration.commands import calibrate

    calibrate.main(_load(args), args.ratings, args.completions, args.second, args.json)


def _print_config(args: argparse.Namespace) -> None:
    from orchestration.config import to_yaml

    print(to_yaml(_load(args)), end="")


def _plan(args: argparse.Namespace) -> None:
    from orchestration.commands import plan

    plan.main(_load(args), args.gpus, args.gpu, args.json)


def _score(args: argparse.Namespace) -> None:
    from orchestration.commands.score import Output, score_file
    from rollout.dataset.read import DatasetFile

    samples = DatasetFile(args.samples, args.format, args.media_root, not args.no_links)
    out = Output(args.out, args.overwrite)
    score_file(args.reward, samples, args.completions, args.progress, out, args.referee, args.config)


def _export(args: argparse.Namespace) -> None:
    from orchestration.commands import export

    export.main(args.checkpoint, args.step, args.out, args.dtype, args.ema)


def _ledger(args: argparse.Namespace) -> None:
    from orchestration.commands import ledger

    ledger.main(args.folder, args.json)


def _doctor(args: argparse.Namespace) -> None:
    from orchestration.commands import doctor

    doctor.main(_load(args) if args.config else None)
