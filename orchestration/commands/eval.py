"""`ser eval`: scores recorded completions and result files of benchmarks, and compares the reports. With `--model`, the
completions are drawn first (orchestration/commands/eval_run).

Guarantees: every number is printed with the protocol that it was computed under. Samples that are left out or scored 0
for their form are counted with a reason; only a file of which nothing can be scored is bad input.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation import comparing
from evaluation.benchmark import Benchmark, ResultBenchmark
from evaluation.completions import evaluate as evaluate_completions
from evaluation.faults import Faults
from evaluation.reading import data_files, rows
from evaluation.registry import NAMES, named
from evidence.errors import BadInput
from evidence.plain import dumps

if TYPE_CHECKING:
    from orchestration.commands.eval_judges import TextJudge

Options = Mapping[str, Any]  # option -> value, without those that were not given
OF_JUDGES = ("--judge", "--judge-model", "--judge-key-env")
OF_RESULTS = ("--results", "--mode", "--boxes", *OF_JUDGES, "--out")
OF_COMPLETIONS = ("--data", "--completions", "--protocol")
OF_RUNS = ("--model", "--data", "--videos", "--subtitles", "--config", "--limit", "--out")
OF_RESCORING = ("--rescore", "--data")
OF_SCORING = ("--protocol", "--mode", "--boxes", *OF_JUDGES)
JUDGED_RESULTS = Path("runs/eval/judged-results")
UNCOMPLETED = ("missing", "unreadable", "too_long", "failed")  # outcomes of a prompt of a run
REPORT_KEYS = ("benchmark", "headline", "n", "counts")
OF_CLASSES = ("acc", "mam", "mlgm", "m_iou")  # the metrics printed of a class; --json has all


def evaluate(name: str, extra: list[str], options: Options, as_json: bool) -> None:
    """Score and print. Raises BadInput for options that do not belong together, and if nothing can be scored."""
    benchmark = named(name)
    if extra and "--model" not in options:
        raise BadInput(f"{extra[0]}: unexpected; only `ser eval compare` takes files without an option")
    if "--model" in options:
        report = _of_run(name, extra, options)
    elif "--rescore" in options:
        report = _rescored(name, options)
    elif isinstance(benchmark, ResultBenchmark):
        report = _of_results(benchmark, options)
    else:
        report = _of_completions(benchmark, options)
    if as_json:
        print(dumps(report))
    else:
        print("\n".join(lines(report)))


def compare(names_of_files: list[str], options: Options, as_json: bool) -> None:
    """Print one table over reports, and paired differences. Raises BadInput for files that are no reports."""
    paths = list(map(Path, names_of_files))
    if options:
        raise BadInput(f"{next(iter(options))}: does not apply to compare, which takes reports and --json")
    if len(paths) < 2:
        raise BadInput("compare: needs two or more files that `ser eval … --json` printed")
    if len(set(paths)) < len(paths):
        raise BadInput("compare: names a file twice; name each once")
    names = [path.stem for path in paths]
    reports = {str(path) if names.count(name) > 1 else name: _report(path) for name, path in zip(names, paths)}
    try:
        comparison = comparing.compare(reports)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"compare: a file is not as `ser eval … --json` prints it ({error!r:.200})") from None
    if as_json:
        print(dumps(comparison))
        return
    for row in comparison["rows"]:
        metric = f"{row['benchmark']} {row['metric']}"
        print(f"{row['report']} {metric} {_shown(row['value'])}{_range(row['ci95'])} n={row['n']} {row['protocol']}")
    for pair in comparison["pairs"]:
        metric = f"{pair['benchmark']} {pair['metric']} {pair['difference']:+.4f}{_range(pair['ci95'])}"
        print(f"{pair['second']} minus {pair['first']}: {metric} n={pair['n']} {pair['protocol']}")
    for pair in comparison["unpaired"]:
        print(f"{pair['second']} and {pair['first']} are not paired: {pair['reason']}")


def _report(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path}: cannot be read as a report ({error}); give what `ser eval … --json` printed") from None
    if not isinstance(report, dict) or any(key not in report for key in REPORT_KEYS):
        raise BadInput(f"{path}: is no report of `ser eval … --json`; it lacks {', '.join(REPORT_KEYS)} or one of them")
    if report["benchmark"] not in NAMES:
        raise BadInput(f"{path}: benchmark = {report['benchmark']!r:.40}: must be one of {', '.join(NAMES)}")
    return report


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """A report for people: a line per number, each with its 95% interval and its protocol, then what was counted."""
    protocol = comparing.protocol(report)
    yield f"{report['benchmark']}: {report['source']}, {report['n']} samples"
    yield from _numbers("", report, protocol, all_metrics=True)
    for key, classes in report.items():
        if key.startswith("by_"):
            for name, numbers in classes.items():
                yield from _numbers(f"{key.removeprefix('by_')} {name} (n={numbers['n']}) ", numbers, protocol, False)
    yield "counts: " + ", ".join(f"{key} {n}" for key, n in report["counts"].items() if isinstance(n, int))
    if "run" in report:
        yield run_line(report)
    if "judging" in report:
        yield _judging(report["judging"])
    for fault in report["faults"]:
        yield f"{fault['count']} x {fault['reason']} (first: {fault['first']})"


def run_line(report: Mapping[str, Any]) -> str:
    """What became of the prompts of a run."""
    facts = report["run"]
    parts = [f"{facts['completed']} of {facts['asked']} prompts completed"]
    parts += [f"{facts[key]} {key}" for key in UNCOMPLETED if facts[key]]
    if facts["judge"]:
        parts.append(_judging(facts["judge"]))
    return f"run: {', '.join(parts)}"


def _judging(facts: Mapping[str, Any]) -> str:
    return "judge {name}: {prompts} prompts, {cached} cached, {failed} failed".format(**facts)


def _of_run(name: str, overrides: list[str], options: Options) -> dict[str, Any]:
    from orchestration.commands.eval_run import Request, run  # imports ray

    _refuse(f"{name} with --model", options, OF_RUNS + OF_SCORING)
    if "--data" not in options:
        raise BadInput(f"{name}: needs --data, the benchmark's annotation")
    chosen = {key.removeprefix("--"): options[key] for key in OF_RUNS if key in options}
    return run(Request(benchmark=name, overrides=overrides, **chosen), _scoring(options), _judge(options))


def _rescored(name: str, options: Options) -> dict[str, Any]:
    from orchestration.commands.eval_run import rescored  # imports ray

    _refuse(f"{name} with --rescore", options, OF_RESCORING + OF_SCORING)
    return rescored(name, options["--rescore"], options.get("--data"), _scoring(options), _judge(options))


def _scoring(options: Options) -> dict[str, str]:
    """The benchmark's own options, and the name of the judge."""
    return {
        key.removeprefix("--"): options[key] for key in ("--protocol", "--mode", "--boxes", "--judge") if key in options
    }


def _judge(options: Options) -> TextJudge | None:
    """The language model that judges, if one does."""
    if not any(key in options for key in OF_JUDGES):
        return None
    from orchestration.commands.eval_judges import judge_named  # imports ray

    return judge_named(*(options.get(key, "") for key in OF_JUDGES))


def _of_results(benchmark: ResultBenchmark, options: Options) -> dict[str, Any]:
    _refuse(benchmark.name, options, OF_RESULTS)
    if "--results" not in options:
        raise BadInput(
            f"{benchmark.name}: needs --results FILE, a result file in the form of its official script, or "
            "--model DIR and --data to run a model"
        )
    path, judge, faults = options["--results"], _judge(options), Faults()
    if judge is None and "--out" in options:
        raise BadInput("--out: holds a language model's replies; name it with --judge URL or vllm:DIR")
    chosen = {key.removeprefix("--"): options[key] for key in ("--mode", "--boxes") if key in options}
    try:
        placed = list(rows(path, faults))
        if judge is None:
            return {"source": str(path), **benchmark.evaluate(placed, faults=faults, **chosen)}
        replies, asked = _replies(benchmark.judge_prompts(placed, **chosen), judge, options)
        report = benchmark.evaluate(placed, judge=judge.name, replies=replies, faults=faults, **chosen)
    except BadInput as error:
        raise _in(path, error) from None
    return {"source": str(path), **report, "judging": asked}


def _replies(
    prompts: Sequence[str], judge: TextJudge, options: Options
) -> tuple[dict[str, str], dict[str, Any] | None]:
    from orchestration.commands.eval_judges import replies_to  # imports ray
    from orchestration.commands.eval_record import held
    from orchestration.preflight import require_folder

    with held(require_folder("--out", options.get("--out", JUDGED_RESULTS))) as folder:
        return replies_to(prompts, judge, folder)


def _of_completions(benchmark: Benchmark, options: Options) -> dict[str, Any]:
    _refuse(benchmark.name, options, OF_COMPLETIONS)
    for key, what in (("--data", "the benchmark's annotation"), ("--completions", "lines of id and text")):
        if key not in options:
            raise BadInput(f"{benchmark.name}: needs {key}, {what}, or --model DIR to run a model")
    data, path = options["--data"], options["--completions"]
    faults = Faults()
    placed = (row for file in data_files(data) for row in rows(file, faults))
    protocol = {"protocol": options["--protocol"]} if "--protocol" in options else {}
    try:
        report = evaluate_completions(benchmark, placed, rows(path, faults), faults=faults, **protocol)
    except BadInput as error:
        raise _in(path, error) from None
    return {"source": str(path), **report}


def _refuse(name: str, options: Options, known: tuple[str, ...]) -> None:
    other = [key for key in options if key not in known]
    if other:
        raise BadInput(f"{other[0]}: does not apply to {name}, which takes {', '.join(known)} and --json")


def _in(path: Path, error: BadInput) -> BadInput:
    return error if str(error).startswith((str(path), "--")) else BadInput(f"{path}: {error}")


def _numbers(title: str, numbers: Mapping[str, Any], protocol: str, all_metrics: bool) -> Iterator[str]:
    intervals = numbers.get("ci95", {})
    for path, value in _leaves({key: numbers[key] for key in intervals}):
        if all_metrics or path[-1] in OF_CLASSES:
            ends = intervals
            for key in path:
                ends = ends[key]
            yield f"{title}{'.'.join(path)} {_shown(value)}{_range(ends)} {protocol}"


def _leaves(tree: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*above, key))
        else:
            yield (*above, key), value


def _shown(value: float | None) -> str:
    return "none" if value is None or value != value else f"{value:.4f}"


def _range(ends: Sequence[float | None] | None) -> str:
    return "" if ends is None else f" [{_shown(ends[0])}, {_shown(ends[1])}]"
