"""`ser eval BENCH --model DIR`: asks a model the questions of a benchmark, records what it answers, and scores it.

Guarantees: every question ends in a recorded completion or in a counted outcome with its path; a run that was ended,
however it was ended, goes on where it was when it is started again; a report covers exactly the questions asked for, of
which those without a completion are unanswered; scoring a record again starts no engine of the policy.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from evaluation.benchmark import Shown
from evaluation.completions import frame_values
from evaluation.exams import Ask, Exam, exam_of, require_options
from evaluation.faults import Faults
from evaluation.reading import data_files, rows
from evaluation.registry import named
from evaluation.videos import MediaFolder
from evidence.digests import file_digest, model_digest
from evidence.errors import BadInput, Interrupted, UnreadableMedia
from evidence.files import write_text
from evidence.plain import dumps
from evidence.spaces import Written
from evidence.types import Sample
from orchestration.commands.ask_many import all_of
from orchestration.commands.eval_judges import TextJudge, replies_to
from orchestration.commands.eval_record import REPORT, RESULTS, Record, opened, read_settings
from orchestration.commands.run_files import policy_config
from orchestration.preflight import require_folder
from orchestration.reporting.progress import Progress
from orchestration.supervision.rollout_pool import SEQUENCES_FACTOR
from orchestration.supervision.standalone_policy import (
    GenerationFailed,
    StandalonePolicy,
    StandalonePolicyConfig,
    TooLong,
    standalone_policy,
)
from rollout.dataset.read import describe
from rollout.prompt import printed_times
from rollout.template import PromptTemplate

Options = Mapping[str, str]  # of scoring: protocol, mode, boxes, judge


@dataclass(frozen=True)
class Request:
    """What to run. config: a YAML file or a run's config.yaml, None for defaults. limit: the number of questions, None
    for all. videos, out: None for the defaults. subtitles: the folder of subtitles, None for none."""

    benchmark: str
    model: str
    data: Path
    config: Path | None = None
    overrides: Sequence[str] = ()
    videos: Path | None = None
    subtitles: Path | None = None
    limit: int | None = None
    out: Path | None = None

    @property
    def folder(self) -> Path:
        return self.out or Path("runs/eval") / f"{self.benchmark}-{Path(self.model).absolute().name}"


@dataclass(frozen=True)
class Located:
    """A question whose video exists. sample: with the path of its media. subtitles: None if it has none."""

    ask: Ask
    sample: Sample
    subtitles: Path | None


def run(request: Request, options: Options, judge: TextJudge | None) -> dict[str, Any]:
    """Ask what the record lacks, and return the report. Raises BadInput, Interrupted and RunFailed."""
    if request.limit is not None and request.limit < 1:
        raise BadInput(f"--limit {request.limit}: must be 1 or more")
    config = policy_config(request.config, [f"model={request.model}", *request.overrides])
    faults = Faults()
    exam = exam_for(request.benchmark, request.data, request.limit, config.template, faults)
    require_options(exam, options)
    if exam.shows_end:
        config = replace(config, contract=replace(config.contract, key_frames=True))
    if request.subtitles is not None and all(ask.show is None for ask in exam.asks):
        raise BadInput(f"--subtitles: {request.benchmark} is not asked with subtitles")
    if request.subtitles is not None and config.template.native_video:
        raise BadInput("--subtitles: cannot be shown with template.native_video = true; set it to false")
    folder = require_folder("--out", request.folder)
    with opened(folder, _settings(request, config)) as record:
        try:
            speed = _ask_missing(exam, config, request, record)
            return _report(exam, record, options, judge, faults, {"model": request.model, "speed": speed})
        except KeyboardInterrupt:
            kept = f"completions in {folder}: {len(record.lines)}"
            raise Interrupted(f"Ctrl-C; {kept}; the same command goes on from there") from None


def _ask_missing(exam: Exam, config: StandalonePolicyConfig, request: Request, record: Record) -> dict[str, float]:
    """Ask what the record lacks. Returns how many questions and tokens, and the seconds."""
    located = locate([ask for ask in exam.asks if ask.id not in record.lines], request, record)
    progress = Progress(request.benchmark, len(located))
    if located:
        ask_all(config, located, record, progress)
    return {"questions": progress.questions, "seconds": round(progress.seconds, 2), "tokens": progress.tokens}


def rescored(name: str, folder: Path, data: Path | None, options: Options, judge: TextJudge | None) -> dict[str, Any]:
    """The report on a record. data: where the annotation is now; None where it was. Raises BadInput."""
    settings = read_settings(folder)
    if settings["drawn"]["benchmark"] != name:
        raise BadInput(f"--rescore {folder}: holds completions of {settings['drawn']['benchmark']}, not of {name}")
    path = data or Path(settings["data"])
    if data_digest(path) != settings["drawn"]["data"]:
        raise BadInput(f"--data {path}: is not the annotation that {folder} was drawn for; name that one")
    faults = Faults()
    template = PromptTemplate(**settings["drawn"]["template"])
    exam = exam_for(name, path, settings["limit"], template, faults)
    require_options(exam, options)
    with opened(folder, settings) as record:
        return _report(exam, record, options, judge, faults, {"model": settings["model"]})


async def answer(policy: StandalonePolicy, located: Sequence[Located], record: Record, progress: Progress) -> None:
    """Ask all questions, and record each completion as it comes."""
    config = policy.config
    at_once = SEQUENCES_FACTOR * config.engine.max_num_seqs * config.cluster.rollout_engines

    def ended(line: dict[str, Any]) -> None:
        record.add(line)
        progress.advance(line.get("tokens", 0))

    with progress:
        await all_of([_line(policy, question) for question in located], at_once, ended)


def ask_all(config: StandalonePolicyConfig, located: Sequence[Located], record: Record, progress: Progress) -> None:
    """Start the model and `answer` all questions with it."""

    async def answered() -> None:
        async with standalone_policy(config, [question.sample for question in located]) as policy:
            await answer(policy, located, record, progress)

    asyncio.run(answered())


async def _line(policy: StandalonePolicy, question: Located) -> dict[str, Any]:
    """The line of a question in the record."""
    ask, sample = question.ask, question.sample
    try:
        with await policy.lease(sample) as lease:
            notes: Mapping[int, str] = {}
            if question.subtitles is not None and ask.show is not None:
                shown = _with_subtitles(ask.show, question.subtitles, lease.info.times)
                sample, notes = replace(sample, question=shown.text), shown.notes
            prompt = policy.prompt(sample, lease, notes)
            (trajectory,) = await policy.generate(prompt, lease.frames)
            return {
                "id": ask.id,
                "text": trajectory.text,
                "finish_reason": trajectory.finish_reason,
                "tokens": len(trajectory.token_ids),
                "prompt_tokens": len(prompt.token_ids),
                "subtitles": question.subtitles is not None,
                **frame_values(lease.info),
            }
    except UnreadableMedia as error:
        return failure(ask.id, "unreadable", error.path, error.reason)
    except TooLong as error:
        return failure(ask.id, "too_long", sample.media_path, str(error))
    except GenerationFailed as error:
        return failure(ask.id, "failed", sample.media_path, str(error))


def failure(name: str, outcome: str, path: str, reason: str) -> dict[str, Any]:
    """The line of a question without a completion."""
    return {"id": name, "outcome": outcome, "path": path, "reason": reason}


def _with_subtitles(show: Callable[[str, Sequence[float]], Shown], path: Path, times: Sequence[float]) -> Shown:
    """Raises UnreadableMedia for a file that cannot be read, or is not in the benchmark's form."""
    try:
        return show(path.read_text(encoding="utf-8-sig", errors="replace"), times)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UnreadableMedia(str(path), f"its subtitles cannot be read ({describe(error)})") from None


def exam_for(name: str, data: Path, limit: int | None, template: PromptTemplate, faults: Faults) -> Exam:
    """The questions of an annotation. Raises BadInput."""
    written = Written(template.box_space, partial(printed_times, template))
    placed = (row for file in data_files(data) for row in rows(file, faults))
    try:
        return exam_of(named(name), placed, limit, written, faults)
    except BadInput as error:
        raise BadInput(f"{data}: {error}") from None


def locate(asks: Sequence[Ask], request: Request, record: Record) -> list[Located]:
    """The questions whose videos exist; the others are recorded as missing."""
    folder = request.videos or (request.data if request.data.is_dir() else request.data.parent)
    videos = MediaFolder(folder)
    subtitles = MediaFolder(request.subtitles) if request.subtitles is not None else None
    located = []
    for ask in asks:
        try:
            path = str(videos.find(ask.video).absolute())
        except FileNotFoundError as error:
            record.add(failure(ask.id, "missing", ask.video, str(error)))
            continue
        if ask.sample.image_path is not None:
            sample = replace(ask.sample, image_path=path)
        else:
            sample = replace(ask.sample, video_path=path)
        located.append(Located(ask, sample, _found(subtitles, ask.subtitles)))
    if not located and not record.lines:
        first = next(iter(record.failures.values()))
        raise BadInput(f"--videos {folder}: holds none of the videos, the first is {first['path']}: {first['reason']}")
    return located


def _found(folder: MediaFolder | None, name: str) -> Path | None:
    """A file of subtitles, or None: many videos of a benchmark have none."""
    try:
        return folder.find(name) if folder is not None and name else None
    except FileNotFoundError:
        return None


def _settings(request: Request, config: StandalonePolicyConfig) -> dict[str, Any]:
    """What a record keeps: under `drawn`, all that the completions depend on."""
    return {
        "model": str(Path(config.model).absolute()),
        "data": str(request.data.absolute()),
        "limit": request.limit,
        "drawn": {
            "benchmark": request.benchmark,
            "model": model_digest(config.model),
            "data": data_digest(request.data),
            "subtitles": request.subtitles is not None,
            "contract": asdict(config.contract),
            "template": asdict(config.template),
            "max_tokens": config.max_tokens,
            "temperature": config.temperature,
            "seed": config.seed,
            "engine": {"dtype": config.engine.dtype, "max_model_len": config.engine.max_model_len},
            "decoder": config.frames.decoder,
        },
    }


def data_digest(data: Path) -> str:
    try:
        return hashlib.sha256("".join(map(file_digest, data_files(data))).encode()).hexdigest()[:32]
    except OSError as error:
        raise BadInput(f"--data {data}: cannot be read ({error.strerror}); name the benchmark's annotation") from None


def _report(
    exam: Exam, record: Record, options: Options, judge: TextJudge | None, faults: Faults, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Score the record, ask the judge where one is needed, and write the report and the result file."""
    ids = {ask.id for ask in exam.asks}
    lines = {name: record.lines[name] for name in ids & record.lines.keys()}
    record.add_faults(ids, faults)
    if judge is not None:
        options = {**options, "judge": judge.name}
    replies, asked = replies_to(exam.prompts(lines, options) if judge else [], judge, record.folder)
    report = exam.report(lines, options, replies, faults)
    if judge is not None:
        report["judge"] = judge.name
    outcomes = record.outcomes(ids)
    with_subtitles = sum(bool(line.get("subtitles")) for line in lines.values())
    run_facts = {**facts, "asked": len(ids), **outcomes, "with_subtitles": with_subtitles, "judge": asked}
    report = {"source": str(record.folder), **report, "run": run_facts}
    write_text(record.folder / REPORT, dumps(report) + "\n")
    if (results := exam.results(lines)) is not None:
        write_text(record.folder / RESULTS, dumps(results, ensure_ascii=False) + "\n")
    return report
