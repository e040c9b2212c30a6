"""VideoMME: four options; by duration, domain and task; with or without subtitles.

Files: flat rows, one per question, or rows of videos that hold `questions`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from evaluation.benchmark import Benchmark, Completion, Question, Scored, Shown, Subtitles
from evaluation.choices import (
    ask_choice,
    first_letter,
    response_text,
    right_letter,
    score_letter,
    score_strict,
    without_labels,
)
from evaluation.reading import PlacedRow, row_of, texts
from rollout.dataset.row import Row

REMOVED = (
    "Best answer:Best option:",
    "Answer:",
)  # of the phrases that the official script removes, those with a letter
CUE = re.compile(r"(\d+):(\d+):(\d+)[,.](\d+)\s*-->\s*(\d+):(\d+):(\d+)[,.](\d+)")
MARKUP = re.compile(r"<[^>]*>")


def read(placed: PlacedRow) -> Iterator[Question]:
    row = row_of(placed)
    if "questions" not in row.values:
        yield _question(row, row)
        return
    for value in row.sequence("questions"):
        yield _question(row, row.inner(value, "a question must be an object"))


def _question(video: Row, row: Row) -> Question:
    options = without_labels(texts(row.value("options"), "options"))
    groups = {"duration": video.text("duration"), "domain": video.text("domain"), "task": row.text("task_type")}
    return Question(
        id=row.text("question_id"),
        video=video.optional_text("videoID") or video.text("video_id"),
        text=row.text("question"),
        answer=right_letter(row.text("answer"), options),
        options=options,
        groups={key: (name,) for key, name in groups.items()},
    )


def ask(question: Question, subtitles: str = "") -> str:
    """subtitles: the lines that `subtitles_at` gives, if the questions are asked with subtitles."""
    before = f"Subtitles of the video:\n{subtitles}\n" if subtitles else ""
    return before + ask_choice(question)


def subtitles_at(srt: str, times: Sequence[float]) -> str:
    """The lines of an SRT file that are shown at one of the sampled frames' `times`, in seconds, each once."""
    lines = []
    for block in re.split(r"\n\s*\n", srt.replace("\r\n", "\n")):
        cue = CUE.search(block)
        if cue is None:
            continue
        parts = [int(part) for part in cue.groups()]
        start, end = (h * 3600 + m * 60 + s + ms / 1000 for h, m, s, ms in (parts[:4], parts[4:]))
        if any(start <= time < end for time in times):
            lines.append(" ".join(MARKUP.sub("", block[cue.end() :]).split()))
    return "\n".join(lines)


def show(question: Question, srt: str, times: Sequence[float]) -> Shown:
    return Shown(ask(question, subtitles_at(srt, times)))


def score(question: Question, completion: Completion, official: bool) -> Scored:
    if not official:
        return score_strict(question, completion)
    letter = first_letter(response_text(completion.text), "ABCD", REMOVED)
    return score_letter(question, letter, outcome_counted=False)


BENCHMARK = Benchmark(
    name="videomme",
    title="VideoMME",
    read=read,
    ask=ask,
    score=score,
    official="the first of the letters A to D anywhere counts, and an answer without one is left out of all shares",
    subtitles=Subtitles(lambda question: f"{question.video}.srt", show),
)
