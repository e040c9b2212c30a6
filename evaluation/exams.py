"""What a model is asked in one run of a benchmark, and the report on what it answered. Pure.

Guarantees: every prompt has an id of its own, under which its completion is recorded; the report covers all that was
asked, and what has no completion counts as unanswered; the report of a record is that of the same completions scored
as a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from types import MappingProxyType
from typing import Any, Protocol

from evaluation.benchmark import PROTOCOLS, UNJUDGED, Benchmark, Completion, Question, ResultBenchmark, Shown
from evaluation.completions import completion_of, read_questions, report_of
from evaluation.faults import Faults
from evaluation.judging import EXACT
from evaluation.measures import RESAMPLES
from evaluation.reading import PlacedRow
from evaluation.vstar.prompts import questions as vstar_questions
from evaluation.vstar.prompts import result
from evaluation.vstar.report import evaluate as evaluate_vstar
from evaluation.vstar.report import judge_prompts
from evaluation.vstar.scoring import BOX_SPACES, MODES
from evidence.config_checks import require
from evidence.errors import BadInput
from evidence.spaces import Written
from evidence.types import KeyFrame, Sample
from rollout.dataset.open_o3 import SPATIO_TEMPORAL_QA, TEMPORAL_QA
from rollout.dataset.read import describe

# Tasks of Open-o3-Video, by which prompt templates know in which form to ask for an answer.
CHOICE, FREE_FORM = "General video QA MCQ", "General video QA Free-form"
VSTAR_TASKS = {
    "what": FREE_FORM,
    "when": TEMPORAL_QA,
    "where": SPATIO_TEMPORAL_QA,
    "where_2": SPATIO_TEMPORAL_QA,
    "when_2": TEMPORAL_QA,
}
# After the end of any video: a key frame there is the last frame.
END = KeyFrame("end", 1e9)
Lines = Mapping[str, Mapping[str, Any]]  # recorded completions by id
Replies = Mapping[str, str]  # a judge's replies by prompt


@dataclass(frozen=True)
class Ask:
    """One prompt. id: of its completion. video: as the annotation names it. sample: what is asked, whose media path is
    not set. subtitles: the name of the file, or empty. show: the question with that file's content."""

    id: str
    video: str
    sample: Sample
    subtitles: str = ""
    show: Callable[[str, Sequence[float]], Shown] | None = None


class Exam(Protocol):
    """The questions of one run. judged: whether some answers need a judge. shows_end: whether each video's last frame
    must be shown. options: those of scoring, with the values that each may have."""

    asks: Sequence[Ask]
    judged: bool
    shows_end: bool
    options: Mapping[str, tuple[str, ...]]

    def prompts(self, lines: Lines, options: Mapping[str, str]) -> list[str]:
        """The judge's prompts about the completions."""

    def report(self, lines: Lines, options: Mapping[str, str], replies: Replies, faults: Faults) -> dict[str, Any]:
        """options: of the benchmark, such as protocol; faults: those found so far."""

    def results(self, lines: Lines) -> list[dict[str, Any]] | None:
        """The result file in the form of the official script, if the benchmark has one."""


def exam_of(
    benchmark: Benchmark | ResultBenchmark,
    rows: Iterable[PlacedRow],
    limit: int | None,
    written: Written,
    faults: Faults,
) -> Exam:
    """Raises BadInput if nothing can be asked."""
    if isinstance(benchmark, ResultBenchmark):
        return VstarExam(rows, limit, faults)
    return QuestionExam(benchmark, rows, limit, written, faults)


def require_options(exam: Exam, options: Mapping[str, str]) -> None:
    """Raises BadInput for an option of scoring that the benchmark does not have, or a value that it cannot have."""
    for name, value in options.items():
        if name == "judge":
            if not exam.judged:
                raise BadInput("--judge: does not apply; the answers are scored by rules")
        elif name not in exam.options:
            raise BadInput(f"--{name}: does not apply; it takes {', '.join(f'--{known}' for known in exam.options)}")
        else:
            require(value in exam.options[name], f"--{name}", value, f"one of {', '.join(exam.options[name])}")


class QuestionExam:
    """The questions of a `Benchmark`."""

    options: Mapping[str, tuple[str, ...]] = MappingProxyType({"protocol": PROTOCOLS})

    def __init__(
        self, benchmark: Benchmark, rows: Iterable[PlacedRow], limit: int | None, written: Written, faults: Faults
    ):
        """limit: the number of questions, from the first. written: how the model writes. faults: those of rows are
        added. Raises BadInput."""
        self.benchmark, self.written = benchmark, written
        questions = read_questions(benchmark, rows, faults)
        self.questions = dict(islice(questions.items(), limit))
        self.judged, self.shows_end = benchmark.judge is not None, benchmark.shows_end
        self.asks: Sequence[Ask] = [self._ask(question) for question in self.questions.values()]

    def prompts(self, lines: Lines, options: Mapping[str, str]) -> list[str]:
        if self.benchmark.judge is None:
            return []
        official = options.get("protocol") == "official"
        return [
            self.benchmark.judge(question, completion.text)
            for name, completion in self._completions(lines, {}).items()
            if self.benchmark.score(question := self.questions[name], completion, official).outcome == UNJUDGED
        ]

    def report(self, lines: Lines, options: Mapping[str, str], replies: Replies, faults: Faults) -> dict[str, Any]:
        completions = self._completions(lines, replies)
        protocol = options.get("protocol", PROTOCOLS[0])
        return report_of(self.benchmark, self.questions, completions, protocol, RESAMPLES, faults)

    def results(self, lines: Lines) -> None:
        return None

    def _completions(self, lines: Lines, replies: Replies) -> dict[str, Completion]:
        completions = {name: completion_of(lines[name], self.written) for name in self.questions if name in lines}
        judge = self.benchmark.judge
        if judge is None:
            return completions
        return {
            name: replace(completion, judge_reply=replies.get(judge(self.questions[name], completion.text)))
            for name, completion in completions.items()
        }

    def _ask(self, question: Question) -> Ask:
        benchmark = self.benchmark
        sample = question.sample or Sample(
            id=question.id,
            source=benchmark.name,
            task=CHOICE if question.options else TEMPORAL_QA if question.span else FREE_FORM,
            question=benchmark.ask(question),
            answer="",
            key_frames=(END,) if benchmark.shows_end else (),
            part=question.part,
            fps=question.fps,
        )
        if benchmark.subtitles is None:
            return Ask(question.id, question.video, sample)
        show = partial(benchmark.subtitles.show, question)
        return Ask(question.id, question.video, sample, benchmark.subtitles.file(question), show)


class VstarExam:
    """V-STaR's five questions about each sample, later ones told the truth about the earlier ones."""

    judged, shows_end = True, False
    options: Mapping[str, tuple[str, ...]] = MappingProxyType({"mode": MODES, "boxes": BOX_SPACES})

    def __init__(self, rows: Iterable[PlacedRow], limit: int | None, faults: Faults):
        """limit: the number of samples, from the first. faults: those of rows are added. Raises BadInput if none can be
        asked."""
        self.rows = list(islice(rows, limit))
        asks: list[Ask] = []
        for row in self.rows:
            try:
                texts = vstar_questions(row.values)
                vid = str(row.values["vid"])
            except (KeyError, TypeError, ValueError, IndexError) as error:
                faults.add(f"cannot be asked: {describe(error)}", row.place)
                continue
            for name, text in texts.items():
                key = f"{row.position}/{name}"
                asks.append(Ask(key, vid, Sample(key, "vstar", VSTAR_TASKS[name], text, "")))
        self.asks: Sequence[Ask] = asks
        if not asks:
            raise BadInput(f"--data holds no sample of V-STaR{f'; {faults.first()}' if faults else ''}")

    def results(self, lines: Lines) -> list[dict[str, Any]]:
        return [self._result(row, lines) for row in self.rows]

    def prompts(self, lines: Lines, options: Mapping[str, str]) -> list[str]:
        return judge_prompts(self._answered(lines), **self._own(options))

    def report(self, lines: Lines, options: Mapping[str, str], replies: Replies, faults: Faults) -> dict[str, Any]:
        judge = options.get("judge", EXACT)
        given = None if judge == EXACT else replies
        return evaluate_vstar(self._answered(lines), judge=judge, replies=given, faults=faults, **self._own(options))

    def _own(self, options: Mapping[str, str]) -> dict[str, Any]:
        return {key: value for key, value in options.items() if key in self.options}

    def _answered(self, lines: Lines) -> list[PlacedRow]:
        return [row._replace(values=values) for row, values in zip(self.rows, self.results(lines))]

    def _result(self, row: PlacedRow, lines: Lines) -> Any:
        """The annotation with the answers; without any, the annotation alone, which is unanswered."""
        own = {name: line for name in VSTAR_TASKS if (line := lines.get(f"{row.position}/{name}")) is not None}
        if not own:
            return row.values
        texts = {name: str(own[name]["text"]) if name in own else "" for name in VSTAR_TASKS}
        size = next(iter(own.values()))["frame_size"]
        return result(row.values, texts, (size[0], size[1]))
