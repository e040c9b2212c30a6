"""WorldSense: three or four options; by domain, duration and audio class.

Files: rows as in its TSV, where lists are written as text.
"""

from __future__ import annotations

from collections.abc import Iterator

from evaluation.benchmark import GUESSED, Benchmark, Completion, Question, Scored
from evaluation.choices import ask_choice, letters, response_text, right_letter, score_strict, without_labels
from evaluation.reading import PlacedRow, row_of, texts

GROUPS = {"domain": "domain", "task": "task_type", "duration": "duration"}  # class -> key
LEAST_WORDS = 6  # of an answer in which an option's text is looked for


def read(placed: PlacedRow) -> Iterator[Question]:
    row = row_of(placed)
    options = without_labels(texts(row.value("candidates"), "candidates"))
    groups = {name: (row.text(key),) for name, key in GROUPS.items()}
    yield Question(
        id=row.text("index"),
        video=row.text("video"),
        text=row.text("question"),
        answer=right_letter(row.text("answer"), options),
        options=options,
        groups=groups | {"audio_class": texts(row.value("audio_class"), "audio_class")},
    )


def score(question: Question, completion: Completion, official: bool) -> Scored:
    if not official:
        return score_strict(question, completion)
    letter, guessed = _harness_letter(response_text(completion.text), question)
    return Scored(float(letter == question.answer), letter, GUESSED) if guessed else _read(question, letter)


def _read(question: Question, letter: str) -> Scored:
    return Scored(float(letter == question.answer), letter)


def _harness_letter(response: str, question: Question) -> tuple[str, bool]:
    """The letter that lmms-eval reads, and whether it had to guess, which it does as "A"."""
    labels = letters(question)
    found = [letter for letter in labels if letter in response]
    if found:
        # Of several, the one whose "(X)" comes last; without brackets, the first of the alphabet.
        return max(found, key=lambda letter: response.rfind(f"({letter})")), False
    if len(response.split()) >= LEAST_WORDS:
        lower = response.lower()
        by_text = {
            letter: lower.rfind(option.lower())
            for letter, option in zip(labels, question.options)
            if option.lower() in lower
        }
        if by_text:
            return max(by_text, key=lambda letter: by_text[letter]), False
    return "A", True


BENCHMARK = Benchmark(
    name="worldsense",
    title="WorldSense",
    read=read,
    ask=ask_choice,
    score=score,
    official="as in lmms-eval, any capital letter of an option counts, and an answer without one is guessed as A",
)
