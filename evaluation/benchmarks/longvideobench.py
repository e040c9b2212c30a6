"""LongVideoBench: up to five options, by duration group and category; subtitles are interleaved with the frames.

Files: rows with `candidates` or `option0` to `option4` ("N/A" for an absent one), and the index `correct_choice`. A
file of subtitles is a list of {"timestamp": [start, end], "text"} in seconds, or {"start", "end", "line"} as h:mm:ss.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

from evaluation.benchmark import GUESSED, Benchmark, Completion, Question, Scored, Shown, Subtitles
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
LEAST_SHOWN_S = 1.0  # a shorter line of subtitles counts as shown that long


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
        extra={
            "subtitles": row.optional_text("subtitle_path") or "",
            "subtitles_from": str(row.optional_amount("starting_timestamp_for_subtitles") or 0.0),
            "duration": str(row.optional_amount("duration") or 0.0),
        },
    )


def _options(row: Row) -> tuple[str, ...]:
    if not is_null(row.value("candidates")):
        return texts(row.value("candidates"), "candidates")
    options = [row.value(f"option{n}") for n in range(MOST_OPTIONS)]
    return tuple(str(option) for option in options if not is_null(option) and option != NO_OPTION)


def show(question: Question, content: str, times: Sequence[float]) -> Shown:
    """The question with each line of subtitles that is shown at a sampled frame, before the first frame after the
    line's middle."""
    notes: dict[int, str] = {}
    place = 0
    for line in json.loads(content):
        start, end, text = _line(line, float(question.extra["duration"]))
        start, end = (second - float(question.extra["subtitles_from"]) for second in (start, end))
        middle = (start + end) / 2
        if end - start < LEAST_SHOWN_S:
            start, end = middle - LEAST_SHOWN_S / 2, middle + LEAST_SHOWN_S / 2
        place = max(place, sum(time <= middle for time in times))
        if any(start < time < end for time in times):
            notes[place] = f"{notes.get(place, chr(10))}{text}\n"
    return Shown(ask_choice(question), notes)


def _line(line: dict[str, Any], duration: float) -> tuple[float, float, str]:
    """Start and end in seconds, and the text. A line without an end lasts until the video's end."""
    if "timestamp" in line:
        start, end = line["timestamp"]
        return float(start), duration if end is None else float(end), str(line["text"])
    return _seconds(line["start"]), _seconds(line["end"]), str(line["line"])


def _seconds(clock: str) -> float:
    hours, minutes, seconds = clock.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


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
    subtitles=Subtitles(lambda question: question.extra["subtitles"], show),
)
