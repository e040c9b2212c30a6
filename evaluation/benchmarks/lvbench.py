"""LVBench: four options, written into the question; by type of question.

Files: rows of videos that hold a list `qa`, or flat rows, one per question.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from evaluation.benchmark import Benchmark, Completion, Question, Scored
from evaluation.choices import ask_choice, response_text, right_letter, score_letter, score_strict, without_labels
from evaluation.reading import PlacedRow, row_of, texts
from rollout.dataset.row import Row

OPTION = re.compile(r"^\s*\(([A-Z])\)\s*(.*)$", re.MULTILINE)


def read(placed: PlacedRow) -> Iterator[Question]:
    row = row_of(placed)
    if "qa" not in row.values:
        video = row.optional_text("key") or row.optional_text("video_path") or row.text("video")
        yield _question(row, video)
        return
    video = row.text("key")
    for value in row.sequence("qa"):
        yield _question(row.inner(value, "a question must be an object"), video)


def _question(row: Row, video: str) -> Question:
    text = row.text("question")
    written = row.value("options")
    options = _options(text) if written is None else without_labels(texts(written, "options"))
    types: Any = row.needed("question_type")
    return Question(
        id=row.text("uid"),
        video=video,
        text=OPTION.sub("", text).strip(),
        answer=right_letter(row.text("answer"), options),
        options=options,
        groups={"type": texts(types, "question_type") if isinstance(types, list) else (str(types),)},
    )


def _options(text: str) -> tuple[str, ...]:
    options = tuple(option.strip() for _, option in OPTION.findall(text))
    if not options:
        raise ValueError('the question holds no options "(A) …", one per line')
    return options


def score(question: Question, completion: Completion, official: bool) -> Scored:
    if not official:
        return score_strict(question, completion)
    return score_letter(question, _first_character(response_text(completion.text)))


def _first_character(response: str) -> str | None:
    """The character that the official script takes: the first after "(", before ")"."""
    answer = response.strip().split(")")[0].strip()
    answer = answer.split("(")[1].strip() if "(" in answer else answer
    return answer[0] if answer else None


BENCHMARK = Benchmark(
    name="lvbench",
    title="LVBench",
    read=read,
    ask=ask_choice,
    score=score,
    official="the first character counts, or that after an opening bracket, whatever follows it",
)
