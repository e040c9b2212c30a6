"""TVGBench (Time-R1): when does the described event happen? Mean IoU, and recall above .3, .5 and .7.

Files: rows of path, question, answer "13.4-28.1" and duration, as rollout.dataset reads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from evaluation.benchmark import Benchmark, Completion, Question, Record, Scored, unparsable
from evaluation.choices import answer_text
from evaluation.measures import Key, Metrics, share
from evaluation.reading import PlacedRow, row_of
from evidence.answers import intervals
from evidence.geometry import tiou
from evidence.numbers import Interval
from rollout.dataset.time_r1 import read_tvgbench

# A number begins where no digit precedes it, so that a long run of digits takes linear time.
NUMBER = re.compile(r"(?<!\d)\d+(?:\.\d*)?")
RANGE = re.compile(rf"({NUMBER.pattern}) (?:to|and) ({NUMBER.pattern})")
RECALL_ABOVE = (0.3, 0.5, 0.7)


def read(placed: PlacedRow) -> Iterator[Question]:
    sample = read_tvgbench(row_of(placed))
    if not sample.spans:
        raise KeyError("answer")
    yield Question(
        id=sample.id,
        video=sample.media_path,
        text=sample.question,
        answer=sample.answer,
        kind="interval",
        span=sample.spans[0],
        groups={"source": (sample.source,)} | ({"semantics": (sample.domain,)} if sample.domain else {}),
    )


def ask(question: Question) -> str:
    return f'{question.text}\nAnswer with the start and the end in seconds, such as "12.54 to 17.83".'


def score(question: Question, completion: Completion, official: bool) -> Scored:
    read = _official_interval(completion.text) if official else _interval(completion.text)
    if read is None or question.span is None:
        return unparsable()
    return Scored(tiou(read, question.span), f"{read[0]:g} to {read[1]:g}")


def _interval(text: str) -> Interval | None:
    """The only interval of the answer, in any notation."""
    answer = answer_text(text)
    read = [] if answer is None else intervals(answer)
    return read[0] if len(read) == 1 else None


def _official_interval(text: str) -> Interval | None:
    """The last `A to B` or `A and B` of the whole completion; without one, its first two numbers."""
    ranges = RANGE.findall(text)
    numbers = ranges[-1] if ranges else NUMBER.findall(text)[:2]
    return (float(numbers[0]), float(numbers[1])) if len(numbers) == 2 else None


def table(records: Sequence[Record]) -> tuple[np.ndarray, Metrics]:
    """Columns 1, IoU, and whether it is above each of RECALL_ABOVE."""
    iou = np.array([record["score"] for record in records], float)
    columns = np.stack([np.ones_like(iou), iou, *(iou > least for least in RECALL_ABOVE)], axis=1)
    return columns, _metrics


def _metrics(sums: np.ndarray) -> dict[Key, np.ndarray]:
    means = [share(sums[..., n], sums[..., 0]) for n in range(1, 2 + len(RECALL_ABOVE))]
    return {("m_iou",): means[0]} | {("r1", str(least)): mean for least, mean in zip(RECALL_ABOVE, means[1:])}


BENCHMARK = Benchmark(
    name="tvgbench",
    title="TVGBench",
    read=read,
    ask=ask,
    score=score,
    official='the last "A to B" or "A and B" anywhere counts; without one, the first two numbers anywhere do',
    table=table,
    headline=("m_iou",),
)
