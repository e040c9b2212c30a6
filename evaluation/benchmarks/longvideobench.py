"""LongVideoBench: up to five options, by duration group and category; subtitles are interleaved with the frames.

Files: rows with `candidates` or `option0` to `option4` ("N/A" where there is none), and the index `correct_choice`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from evaluation.benchmark import GUESSED, Benchmark, Completion, Question, Scored
from evaluation.choices import (
    LETTERS,
    ask_choice,
    first_letter,
    letters,
    response_text,
    score_letter,
    score_strict,
    without_labels,
)
from evaluation.reading import PlacedRow, row_of, texts
from rollout.dataset.row import Row, is_null

REMOVED = ("Best answer:", "Best option:")  # of the phrases that the protocol removes, those that hold a letter
MOST_OPTIONS = 5
NO_OPTION = "N/A"


def read(placed: PlacedRow) -> Iterator[Question]:
    row = row_of(placed)
    options = without_labels(_options(row))
    index = row.number("correct_choice")
    if index not in range(len(options)):
        raise ValueError(f"correct_choice = {index:g}: must be the index of one of the {len(options)} options")
    yield Question(
        id=row.text("id"),
        video=row.optional_text("video_id") or row.text("video_path"),
        text=row.text("question"),
        answer=LETTERS[int(index)],
        options=options,
        groups={"duration_group": (row.text("duration_group"),), "category": (row.text("question_category"),)},
    )


def _options(row: Row) -> tuple[str, ...]:
    if not is_null(row.value("candidates")):
        return texts(row.value("candidates"), "candidates")
    options = [row.value(f"option{n}") for n in range(MOST_OPTIONS)]
    return tuple(str(option) for option in options if not is_null(option) and option != NO_OPTION)


def score(question: Question, completion: Completion, official: bool) -> Scored:
    if not official:
        return score_strict(question, completion)
    letter = first_letter(response_text(completion.text), LETTERS[:MOST_OPTIONS], REMOVED)
    if letter is not None:
        return score_letter(question, letter)
    guess = random.Random(question.id).choice(letters(question))  # by the id, so that equal files give equal reports
    return Scored(float(guess == question.answer), guess, GUESSED)


BENCHMARK = Benchmark(
    name="longvideobench",
    title="LongVideoBench",
    read=read,
    ask=ask_choice,
    score=score,
    official="the first of the letters A to E anywhere counts, and an answer without one is guessed at random",
)
