"""Perception Test: multiple choice with three options, the right one by its index `answer_id`.

Files: rows, one per question, or one object that maps each video to its `mc_question` list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from evaluation.benchmark import Benchmark, Completion, Question, Scored
from evaluation.choices import LETTERS, ask_choice, response_text, score_letter, score_strict, without_labels
from evaluation.reading import PlacedRow, row_of, texts
from rollout.dataset.row import Row, is_null

WORD = re.compile(r"\b([A-D])\b")
GROUPS = ("area", "reasoning")


def read(placed: PlacedRow) -> Iterator[Question]:
    row = row_of(placed)
    if "mc_question" not in row.values:
        yield _question(row, row.text("video_name"), row.text("question_id"))
        return
    if placed.key is None:
        raise KeyError("video_name")
    for value in row.sequence("mc_question"):
        question = row.inner(value, "a question must be an object")
        yield _question(question, placed.key, question.text("id"))


def _question(row: Row, video: str, number: str) -> Question:
    options = without_labels(texts(row.value("options"), "options"))
    index = row.number("answer_id")
    if index not in range(len(options)):
        raise ValueError(f"answer_id = {index:g}: must be the index of one of the {len(options)} options")
    return Question(
        id=f"{video}/{number}",
        video=video,
        text=row.text("question"),
        answer=LETTERS[int(index)],
        options=options,
        groups={key: (row.text(key),) for key in GROUPS if not is_null(row.value(key))},
    )


def score(question: Question, completion: Completion, official: bool) -> Scored:
    if not official:
        return score_strict(question, completion)
    match = WORD.search(response_text(completion.text))
    return score_letter(question, match[1] if match else None)


BENCHMARK = Benchmark(
    name="perception_test",
    title="Perception Test",
    read=read,
    ask=ask_choice,
    score=score,
    official="as in lmms-eval, the first letter from A to D that is a word of its own counts",
)
