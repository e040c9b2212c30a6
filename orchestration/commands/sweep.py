"""`ser sweep`: the runs of a sweep one after the other or several at once, and their results side by side.

Guarantees: every run's config is checked before any run starts; one process runs a sweep; what is under way on a
cluster goes on when this process ends, and is found again. Progress is on stderr, results are on stdout.
"""

from __future__ import annotations

import contextlib
import hashlib
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evidence.errors import BadInput
from evidence.files import write_text
from evidence.plain import dumps
from orchestration.commands.report import Command as Report
from orchestration.commands.report import write_report
from orchestration.commands.score import Output
from orchestration.config import load_config, recipe_file, to_yaml
from orchestration.folders import require_folder
from orchestration.run_directory import CONFIG, held
from orchestration.run_report.recorded import read_run
from orchestration.settings import TrainConfig
from orchestration.streams import say
from orchestration.sweeps.expansion import SweepRun, expand
from orchestration.sweeps.launching import Launcher
from orchestration.sweeps.results import differences, means, result
from orchestration.sweeps.running import Signals, SweepRunner
from orchestration.sweeps.settings import SweepConfig, load_sweep
from orchestration.sweeps.state import LOGS, RUNS, SWEEP, SweepState, read_state
from orchestration.sweeps.table import Tables

TABLE, ALL, PAGE = "results.csv", "results.json", "report.html"


@dataclass(frozen=True)
class Command:
    """The arguments of `ser sweep`. overrides: of every run. sweep_dir, parallel: None for what the file says. address:
    of the dashboard of a Ray cluster; None runs processes of this machine."""

    file: Path
    overrides: Sequence[str] = ()
    sweep_dir: Path | None = None
    parallel: int | None = None
    address: str | None = None
    dry_run: bool = False
    results: bool = False
    retry_failed: bool = False
    as_json: bool = False

    def again(self) -> str:
        """The command that goes on with this sweep."""
        options = {"--dir": self.sweep_dir, "--address": self.address, "--parallel": self.parallel}
        given = [text for name, value in options.items() if value is not None for text in (name, str(value))]
        return shlex.join(["ser", "sweep", str(self.file), *self.overrides, *given])


def main(command: Command) -> None:
    """Run the sweep, list its runs, or show its results. Raises BadInput, RunFailed and Interrupted."""
    sweep = load_sweep(command.file, _own_overrides(command))
    folder = require_folder("sweep_dir", sweep.sweep_dir)
    if command.results:
        _show(_tables(_begun(folder), folder), folder, command.as_json)
        return
    config = recipe_file("experiment", sweep.config, str(command.file), command.file.parent).resolve()
    try:
        runs = expand(sweep, command.overrides)
    except BadInput as error:
        raise BadInput(f"{command.file}: {error}") from None
    digests, problems = checked(config, folder, runs)
    if command.dry_run:
        _list(runs, problems, command.as_json)
    for name, problem in problems.items():
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise BadInput(f"{command.file}: run {name} is refused{more}: {problem}")
    if not command.dry_run:
        _run(command, sweep, folder, config, runs, digests)


def _own_overrides(command: Command) -> list[str]:
    given = {"sweep_dir": command.sweep_dir, "parallel": command.parallel}
    return [f"{key}={value}" for key, value in given.items() if value is not None]


def checked(config: Path, folder: Path, runs: Sequence[SweepRun]) -> tuple[dict[str, str], dict[str, str]]:
    """By the names of runs: the digests of their resolved configs, and the fault of each whose config is not valid, or
    is that of a run before it."""
    first: dict[str, str] = {}
    digests, problems = {}, {}
    for run in runs:
        try:
            resolved = load_config(TrainConfig, config, [*run.overrides, f"run_dir={folder / RUNS / run.name}"])
        except BadInput as error:
            problems[run.name] = str(error)
            continue
        digest = digests[run.name] = hashlib.sha256(to_yaml(replace(resolved, run_dir="-")).encode()).hexdigest()
        same = first.setdefault(digest, run.name)
        if same != run.name:
            problems[run.name] = f"its config is that of run {same}; leave one out"
    return digests, problems


def _list(runs: Sequence[SweepRun], problems: dict[str, str], as_json: bool) -> None:
    if as_json:
        listed = [
            {"run": run.name, "overrides": list(run.overrides), "problem": problems.get(run.name)} for run in runs
        ]
        print(dumps(listed, indent=1))
        return
    for run in runs:
        print(f"{run.name}: {' '.join(map(shlex.quote, run.overrides))}")
        print(f"  {problems.get(run.name, 'its config is valid')}")
    print(f"{len(runs)} runs")


def _run(
    command: Command,
    sweep: SweepConfig,
    folder: Path,
    config: Path,
    runs: Sequence[SweepRun],
    digests: Mapping[str, str],
) -> None:
    with contextlib.ExitStack() as stack:
        signals = Signals()
        launcher = _launcher(command, folder, signals)
        stack.enter_context(held("sweep_dir", folder))
        state = SweepState.begun(folder, config, runs, digests)
        state.require_place(folder, launcher.place)
        if command.retry_failed:
            for run in state.of_status("failed"):
                run.status, run.failures = "waiting", 0
        stack.enter_context(signals.listening())
        counts = Counter(run.status for run in state.runs)
        say(f"{folder}: {len(runs)} runs, {', '.join(f'{n} {status}' for status, n in counts.items())}")
        runner = SweepRunner(state, folder, launcher, signals, sweep.parallel, sweep.retries)
        problem = runner.run(command.again())
    _show(_tables(state, folder), folder, command.as_json)
    if problem is not None:
        raise problem


def _launcher(command: Command, folder: Path, signals: Signals) -> Launcher:
    if command.address is None:
        from orchestration.sweeps.processes import Processes

        return Processes(folder / LOGS, lambda: signals.count)
    from orchestration.ray_jobs import Jobs  # Ray takes seconds to import
    from orchestration.sweeps.ray_launcher import RayJobs

    return RayJobs(Jobs(command.address))


def _begun(folder: Path) -> SweepState:
    state = read_state(folder)
    if state is None:
        raise BadInput(f"{folder}: holds no {SWEEP}; no run of this sweep has begun")
    return state


def _tables(state: SweepState, folder: Path) -> Tables:
    results = []
    for record in state.runs:
        run_dir = folder / RUNS / record.name
        results.append(result(record, read_run(run_dir, record.name) if (run_dir / CONFIG).is_file() else None))
    return Tables(results, means(results), differences(results))


def _show(tables: Tables, folder: Path, as_json: bool) -> None:
    """Print the tables, and write them and the report into the sweep's folder."""
    text = dumps(tables.plain(folder.name), indent=1)
    write_text(folder / ALL, text + "\n")
    write_text(folder / TABLE, tables.csv())
    begun = [folder / RUNS / run.run for run in tables.results if (folder / RUNS / run.run / CONFIG).is_file()]
    written = [folder / TABLE, folder / ALL]
    if begun:
        write_report(Report(begun, Output(folder / PAGE, overwrite=True), None))
        written.append(folder / PAGE)
    if as_json:
        print(text)
        return
    tables.show()
    print("\n".join(map(str, written)))
