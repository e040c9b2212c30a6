"""VSI-Bench: multiple choice, and numbers by mean relative accuracy; `overall` is the unweighted mean of eight tasks.

Files: rows with `question_type` and `ground_truth`. The task of relative directions is the mean of its three levels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from evaluation.benchmark import Benchmark, Completion, Question, Record, Scored, unparsable
from evaluation.choices import (
    LETTERS,
    answer_text,
    ask_choice,
    response_text,
    right_letter,
    score_strict,
    without_labels,
)
from evaluation.measures import Key, Metrics, share
from evaluation.reading import PlacedRow, row_of, texts
from evidence.numbers import quantity
from referee.terms.answers import MRA_ERRORS

DIRECTION = "object_rel_direction"
# Task -> its question types.
TASKS = {
    "object_counting": ("object_counting",),
    "object_abs_distance": ("object_abs_distance",),
    "object_size_estimation": ("object_size_estimation",),
    "room_size_estimation": ("room_size_estimation",),
    "object_rel_distance": ("object_rel_distance",),
    DIRECTION: tuple(f"{DIRECTION}_{level}" for level in ("easy", "medium", "hard")),
    "route_planning": ("route_planning",),
    "obj_appearance_order": ("obj_appearance_order",),
}
TYPES = tuple(name for types in TASKS.values() for name in types)
NUMERIC = TYPES[:4]
ROUNDING = 1e-9  # an error of exactly a fifth reaches the threshold .8
TOLERATED = tuple(error + ROUNDING for error in MRA_ERRORS)  # relative errors
OFFICIALLY_TOLERATED = tuple((1 - np.linspace(0.5, 0.95, 10)).tolist())  # with the rounding of the official script


def read(placed: PlacedRow) -> Iterator[Question]:
    row = row_of(placed)
    kind = row.text("question_type")
    if kind not in TYPES:
        raise ValueError(f"question_type = {kind}: must be one of {', '.join(TYPES)}")
    truth = row.text("ground_truth")
    options = () if kind in NUMERIC else without_labels(texts(row.value("options"), "options"))
    if kind in NUMERIC:
        row.number("ground_truth")
    yield Question(
        id=row.text("id"),
        video=f"{row.optional_text('dataset') or ''}/{row.text('scene_name')}",
        text=row.text("question"),
        answer=truth if kind in NUMERIC else right_letter(truth, options),
        options=options,
        kind=kind,
        groups={"task": (next(task for task, types in TASKS.items() if kind in types),)},
    )


def ask(question: Question) -> str:
    return f"{question.text}\nAnswer with a number only." if question.kind in NUMERIC else ask_choice(question)


def score(question: Question, completion: Completion, official: bool) -> Scored:
    if question.kind in NUMERIC:
        value = _first_number(completion.text) if official else _number(completion.text)
        if value is None:
            return unparsable()
        tolerated = OFFICIALLY_TOLERATED if official else TOLERATED
        return Scored(mean_relative_accuracy(value, float(question.answer), tolerated), f"{value:g}")
    if not official:
        return score_strict(question, completion)
    word = _first_word(completion.text).upper()
    return Scored(float(word == question.answer), word) if word in set(LETTERS) else unparsable()


def mean_relative_accuracy(value: float, truth: float, tolerated: Sequence[float] = TOLERATED) -> float:
    """The share of the thresholds .5, .55, …, .95 for which the relative error is at most one minus the threshold."""
    if truth == 0:
        return float(value == 0)
    error = abs(value - truth) / abs(truth)
    return sum(error <= most for most in tolerated) / len(tolerated)


def _first_word(text: str) -> str:
    """What the official script compares: the text up to the first space, without full stops at its end."""
    return response_text(text).split(" ")[0].rstrip(".").strip()


def _first_number(text: str) -> float | None:
    try:
        value = float(_first_word(text))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _number(text: str) -> float | None:
    """The number that the whole answer is, with or without a unit."""
    answer = answer_text(text)
    number = None if answer is None else quantity(answer)
    return None if number is None else number.value


def table(records: Sequence[Record]) -> tuple[np.ndarray, Metrics]:
    """Columns score and count for each of TYPES; the metrics of the tasks, and `overall`, the mean of those that the
    data has."""
    columns = np.zeros((len(records), 2 * len(TYPES)))
    for n, record in enumerate(records):
        place = 2 * TYPES.index(record["kind"])
        columns[n, place : place + 2] = record["score"], 1
    return columns, _metrics


def _metrics(sums: np.ndarray) -> dict[Key, np.ndarray]:
    by_type = dict(zip(TYPES, np.moveaxis(share(sums[..., ::2], sums[..., 1::2]), -1, 0)))
    tasks = {task: _known_mean([by_type[name] for name in types]) for task, types in TASKS.items()}
    return {("overall",): _known_mean(list(tasks.values()))} | {("task", task): mean for task, mean in tasks.items()}


def _known_mean(means: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of those that are not NaN, NaN if all are."""
    stacked = np.stack(means)
    known = ~np.isnan(stacked)
    return share(np.where(known, stacked, 0).sum(axis=0), known.sum(axis=0))


BENCHMARK = Benchmark(
    name="vsi_bench",
    title="VSI-Bench",
    read=read,
    ask=ask,
    score=score,
    official="the text up to the first space counts, without a full stop",
    table=table,
    headline=("overall",),
)
