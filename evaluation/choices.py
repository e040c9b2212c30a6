"""Multiple choice: how options are shown, and which letter an answer states. Pure.

The strict reading accepts an answer whose meaning is plain, and nothing else: the label alone (`B`, `B.`, `(B)`, `[B]`,
`Option B`), the label with the option's text (`B. a cup`), or the text alone. It never takes a letter out of a
sentence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from evaluation.benchmark import Completion, Question, Scored, unparsable
from evidence.grammar import parse
from referee.terms.choices import ALONE, WITH_TEXT
from referee.terms.words import plain

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
INSTRUCTION = "Answer with the letter of the right option only."


def answer_text(text: str) -> str | None:
    """The text between the answer tags, or a text without any tags as it is; None if tags are opened and not closed."""
    answer = parse(text).answer
    if answer is not None:
        return answer.strip()
    return None if "<answer>" in text or "<think>" in text else text.strip()


def response_text(text: str) -> str:
    """What official scripts are given: the text between answer tags, or all of it."""
    answer = parse(text).answer
    return text if answer is None else answer.strip()


def without_labels(options: Sequence[str]) -> tuple[str, ...]:
    """The options' texts, without the labels `A.`, `(A)`, … if all of them have theirs."""
    stripped = [re.sub(rf"^\s*\(?{letter}[.):]\s*", "", option, count=1) for letter, option in zip(LETTERS, options)]
    labelled = all(text != option for text, option in zip(stripped, options))
    return tuple(stripped if labelled else (option.strip() for option in options))


def letters(question: Question) -> str:
    """The labels of a question's options."""
    return LETTERS[: len(question.options)]


def ask_choice(question: Question) -> str:
    """The question, its options with letters, and the instruction."""
    options = (f"{letter}. {option}" for letter, option in zip(LETTERS, question.options))
    return "\n".join((question.text, *options, INSTRUCTION))


def stated_letter(answer: str, options: Sequence[str]) -> str | None:
    """The letter of the option that an answer states; None if it states none, or contradicts itself."""
    labels = LETTERS[: len(options)]
    same = [letter for letter, option in zip(labels, options) if plain(option) == plain(answer)]
    alone = ALONE.fullmatch(answer)
    if alone and alone[1].upper() in labels:
        return alone[1].upper()
    if len(same) == 1:
        return same[0]
    stated = WITH_TEXT.fullmatch(answer)
    if stated is None or (stated[1] or "").upper() not in set(labels):
        return None
    named = [letter for letter, option in zip(labels, options) if plain(option) == plain(stated[3])]
    letter = stated[1].upper()
    return letter if not named or letter in named else None


def score_letter(question: Question, letter: str | None, outcome_counted: bool = True) -> Scored:
    """A read letter compared with the right one; None is unparsable."""
    if letter is None:
        return unparsable(outcome_counted)
    return Scored(float(letter == question.answer), letter)


def score_strict(question: Question, completion: Completion) -> Scored:
    """The strict reading of a completion."""
    answer = answer_text(completion.text)
    return score_letter(question, None if answer is None else stated_letter(answer, question.options))


def first_letter(text: str, labels: str, removed: Sequence[str] = ()) -> str | None:
    """The first capital letter of `labels` anywhere in the text, after `removed` phrases: a rule of several official
    scripts, which reads C in "Cannot tell"."""
    for phrase in removed:
        text = text.replace(phrase, "")
    match = re.search(f"[{labels}]", text)
    return match[0] if match else None


def right_letter(value: str, options: Sequence[str]) -> str:
    """The reference as a letter: a letter, or the text of an option. Raises ValueError for anything else."""
    letter = stated_letter(value, options)
    if letter is None:
        raise ValueError(f"the answer {value!r:.40} names none of the {len(options)} options")
    return letter
