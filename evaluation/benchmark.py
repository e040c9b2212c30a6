"""What a benchmark is: how its files are read, how its questions are asked, how answers are scored. Pure.

There are two kinds. A `Benchmark` scores recorded completions against its own annotation. A `ResultBenchmark` scores
result files in the form of its official script, which carry their truth with them. `evaluation.registry` lists both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evaluation.measures import Key, Metrics, share
from evaluation.reading import PlacedRow
from evidence.numbers import Interval
from evidence.spaces import Written
from evidence.types import FrameInfo, Sample

PROTOCOLS = ("strict", "official")  # the first is the default
# Outcomes of a completion.
READ, UNPARSABLE, GUESSED, UNANSWERED = "read", "unparsable", "guessed", "unanswered"
JUDGED, UNJUDGED = "judged", "unjudged"  # by a language model; without its reply the answer is wrong
OUTCOMES = (READ, UNPARSABLE, GUESSED, JUDGED, UNJUDGED, UNANSWERED)

Record = dict[str, Any]  # one sample's scores as plain data, as in the report's `samples`


@dataclass(frozen=True)
class Question:
    """One question of a benchmark.

    id: as completions name it. video: questions about the same one are not independent. options: the choices without
    labels. answer: the right letter, number, word or text. kind: the benchmark's own name for the form of the answer.
    span: the true interval in seconds. part: of the video that is shown, seconds; None: all of it. fps: the frame rate
    of a video that is a folder of frames. groups: class -> the names under which the question counts, such as
    {"duration": ("short",)}. extra: what only this benchmark needs. sample: the dataset's, where its task decides how
    it is asked and scored.
    """

    id: str
    video: str
    text: str
    answer: str
    options: tuple[str, ...] = ()
    kind: str = "choice"
    span: Interval | None = None
    part: Interval | None = None
    fps: float | None = None
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    extra: Mapping[str, str] = field(default_factory=dict)
    sample: Sample | None = None


@dataclass(frozen=True)
class Completion:
    """A recorded completion. judge_reply: what a language model replied about it, where the benchmark asks one.
    frames: those it was drawn on, if they are recorded. written: how its model writes boxes and times."""

    text: str
    judge_reply: str | None = None
    frames: FrameInfo | None = None
    written: Written = field(default_factory=Written)


@dataclass(frozen=True)
class Scored:
    """A completion's score in [0, 1], the answer that was read, and one of OUTCOMES.

    counted: whether the protocol counts the sample at all. more: other measures of the completion, by name.
    """

    score: float
    parsed: str | None
    outcome: str = READ
    counted: bool = True
    more: Mapping[str, float] = field(default_factory=dict)


def unparsable(counted: bool = True) -> Scored:
    """An answer that cannot be read: wrong, or left out where a protocol counts only what it can read."""
    return Scored(0.0, None, UNPARSABLE, counted)


@dataclass(frozen=True)
class Shown:
    """A question as it is put to a model: the text after the last frame, and texts before the frame of an index."""

    text: str
    notes: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Subtitles:
    """How questions are asked with subtitles. file: the name of a question's file. show: the question with the content
    of that file, for frames at these seconds; raises ValueError and KeyError for content in another form."""

    file: Callable[[Question], str]
    show: Callable[[Question, str, Sequence[float]], Shown]


Table = Callable[[Sequence[Record]], tuple[np.ndarray, Metrics]]


def accuracy_table(records: Sequence[Record]) -> tuple[np.ndarray, Metrics]:
    """Columns score and counted; the metric `acc`, the mean score of the counted samples."""
    columns = np.array([(r["score"] * r["counted"], r["counted"]) for r in records], float).reshape(-1, 2)
    return columns, lambda sums: {("acc",): share(sums[..., 0], sums[..., 1])}


def means_by(records: Sequence[Record], group: str) -> tuple[list[str], np.ndarray]:
    """The names in `group`, sorted, and the columns sum and count of the counted samples for each: float [N, 2 * G]."""
    names = sorted({name for r in records for name in r["groups"].get(group, ())})
    columns = np.zeros((len(records), 2 * len(names)))
    for n, r in enumerate(records):
        for name in r["groups"].get(group, ()):
            place = 2 * names.index(name)
            columns[n, place : place + 2] = r["score"] * r["counted"], r["counted"]
    return names, columns


def mean_of_groups_table(group: str) -> Table:
    """`acc` as in `accuracy_table`, and `mean_of_{group}s`, the unweighted mean of the groups' means."""

    def table(records: Sequence[Record]) -> tuple[np.ndarray, Metrics]:
        samples, acc = accuracy_table(records)
        _, columns = means_by(records, group)

        def metrics(sums: np.ndarray) -> dict[Key, np.ndarray]:
            means = share(sums[..., 2::2], sums[..., 3::2])
            known = ~np.isnan(means)
            mean = share(np.where(known, means, 0).sum(axis=-1), known.sum(axis=-1))
            return {**acc(sums), (f"mean_of_{group}s",): mean}

        return np.concatenate([samples, columns], axis=1), metrics

    return table


@dataclass(frozen=True)
class Benchmark:
    """A benchmark whose completions are scored against its annotation.

    read: the questions of a row; raises KeyError or ValueError for a row that is not the benchmark's.
    ask: the text after the last frame. score: a completion under the official or the strict protocol.
    table: columns and metrics of the samples' records. headline: the metric that publications give.
    official: what the official protocol does that the strict one does not, in one sentence.
    subtitles: how questions are asked with subtitles, if they can be. shows_end: whether the last frame must be shown.
    judge: the prompt by which a language model is asked about a completion whose outcome is UNJUDGED.
    """

    name: str
    title: str
    read: Callable[[PlacedRow], Iterable[Question]]
    ask: Callable[[Question], str]
    score: Callable[[Question, Completion, bool], Scored]
    official: str
    table: Table = accuracy_table
    headline: Key = ("acc",)
    subtitles: Subtitles | None = None
    shows_end: bool = False
    judge: Callable[[Question, str], str] | None = None


@dataclass(frozen=True)
class ResultBenchmark:
    """A benchmark whose result files are scored. evaluate: rows and options in, report out. judge_prompts: what a
    language model is asked about these rows. table: columns and metrics of the samples of a report. ask: the texts of a
    sample's questions, by name."""

    name: str
    title: str
    evaluate: Callable[..., dict[str, Any]]
    judge_prompts: Callable[..., list[str]]
    ask: Callable[[dict[str, Any]], dict[str, str]]
    table: Callable[[Mapping[str, Any], Sequence[Record]], tuple[np.ndarray, Metrics]]
