"""VideoMMMU: the tracks Perception, Comprehension and Adaptation; the last has open questions, too.

Files: rows of the three tracks, each in a folder or a file named after its track, or with a key `track`. A question is
`Track/id`. Its picture is at the end of the video, which the prompt says.
"""

from __future__ import annotations

from collections.abc import Iterator

from evaluation.benchmark import Benchmark, Completion, Question, Scored, unparsable
from evaluation.choices import (
    answer_text,
    ask_choice,
    letters,
    response_text,
    right_letter,
    score_letter,
    score_strict,
    without_labels,
)
from evaluation.mmmu import is_right, letter_of
from evaluation.reading import PlacedRow, row_of, texts

TRACKS = ("Perception", "Comprehension", "Adaptation")
OPEN = "open"
LEARNED = "Learn from the video; the picture of the question is shown at its end."
IGNORED = "Ignore the quiz question in the last frame of the video."


def read(placed: PlacedRow) -> Iterator[Question]:
    row = row_of(placed)
    track = row.optional_text("track") or _track(placed)
    is_open = row.text("question_type") == OPEN
    options = () if is_open else without_labels(texts(row.value("options"), "options"))
    answer = row.text("answer")
    yield Question(
        id=f"{track}/{row.text('id')}",
        video=row.text("id"),
        text=row.text("question"),
        answer=answer if is_open else right_letter(answer, options),
        options=options,
        kind=OPEN if is_open else "choice",
        groups={"track": (track,), "subject": (_subject(row.text("id")),)},
    )


def _track(placed: PlacedRow) -> str:
    names = (placed.file.name.casefold(), placed.file.parent.name.casefold())
    for track in TRACKS:
        if any(track.casefold() in name for name in names):
            return track
    raise ValueError(f"the track is in neither the key 'track' nor the names of file and folder ({', '.join(TRACKS)})")


def _subject(name: str) -> str:
    """The subject in an id such as `validation_Art_Theory_3`."""
    return "_".join(name.split("_")[1:-1]) or name


def ask(question: Question) -> str:
    hint = LEARNED if question.groups["track"][0] == "Adaptation" else IGNORED
    if question.kind == OPEN:
        return f"{hint}\n{question.text}\nAnswer with the result only."
    return f"{hint}\n{ask_choice(question)}"


def score(question: Question, completion: Completion, official: bool) -> Scored:
    if question.kind == OPEN:
        answer = response_text(completion.text) if official else answer_text(completion.text)
        if not answer:
            return unparsable(counted=not official)
        return Scored(float(is_right(answer, question.answer)), answer)
    if not official:
        return score_strict(question, completion)
    response = response_text(completion.text)
    if not response:
        return unparsable(counted=False)
    return score_letter(question, letter_of(response, letters(question), question.options))


BENCHMARK = Benchmark(
    name="videommmu",
    title="VideoMMMU",
    read=read,
    ask=ask,
    score=score,
    official="letters are found by MMMU's rules anywhere in the answer, and an empty completion is left out",
    shows_end=True,
)
