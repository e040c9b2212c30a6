"""TempCompass: multiple choice, yes or no, caption matching, and captioning, which a language model judges.

Files: flat rows with `video_id` and `dim`, or one object that maps each video to its questions by dimension. A question
is `format/video/dim/n` in the latter, `format/position` in the former. The format is known by the form of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from evaluation.benchmark import (
    JUDGED,
    UNJUDGED,
    Benchmark,
    Completion,
    Question,
    Scored,
    mean_of_groups_table,
    unparsable,
)
from evaluation.choices import answer_text, response_text
from evaluation.reading import PlacedRow, row_of
from referee.terms.words import plain
from rollout.dataset.row import Row

CHOICE, YES_NO, MATCHING, CAPTIONING = "multi-choice", "yes_no", "caption_matching", "captioning"
OPTION = re.compile(r"([A-D])\. (.+)")
CAPTION = re.compile(r"((?:Caption|Sentence|Option) (\w+)): (.+)")
LETTER_FIRST = re.compile(r"([A-D])(?:[.)]|$)")
LETTER = re.compile(r"\(?([A-D])(?:[.)]+(?: .*)?)?")
YES_OR_NO = re.compile(r"(yes|no)\b", re.IGNORECASE)
INSTRUCTIONS = {
    CHOICE: "Answer with the letter of the right option only.",
    YES_NO: 'Answer with "yes" or "no" only.',
    MATCHING: "Answer with the label of the right caption only.",
    CAPTIONING: "",
}


def read(placed: PlacedRow) -> Iterator[Question]:
    row = row_of(placed)
    if placed.key is None:
        yield _question(row, row.text("video_id"), row.text("dim"), str(placed.position))
        return
    for dim, values in row.values.items():
        if not isinstance(values, list):
            raise ValueError(f"the questions of {dim!r:.40} must be a list")
        for n, value in enumerate(values):
            question = row.inner(value, "a question must be an object")
            yield _question(question, placed.key, dim, f"{placed.key}/{dim}/{n}")


def _question(row: Row, video: str, dim: str, number: str) -> Question:
    is_caption = "mc_question" in row.values
    answer = row.text("mc_answer" if is_caption else "answer")
    form = CAPTIONING if is_caption else _form(answer)
    return Question(
        id=f"{form}/{number}",
        video=video,
        text=row.text("question"),
        answer=answer,
        kind=form,
        groups={"format": (form,), "dim": (dim,)},
        extra={"mc_question": row.text("mc_question")} if is_caption else {},
    )


def _form(answer: str) -> str:
    if answer.lower() in ("yes", "no"):
        return YES_NO
    if OPTION.fullmatch(answer):
        return CHOICE
    if CAPTION.fullmatch(answer):
        return MATCHING
    raise ValueError(f"the answer {answer!r:.40} is neither yes, no, 'A. …' nor 'Caption A: …'")


def ask(question: Question) -> str:
    return f"{question.text}\n{INSTRUCTIONS[question.kind]}".strip()


def score(question: Question, completion: Completion, official: bool) -> Scored:
    if question.kind == CAPTIONING:
        return _caption(question, completion)
    answer = response_text(completion.text).strip() if official else answer_text(completion.text)
    right = None if answer is None else READERS[question.kind](question, answer, official)
    if right is not None:
        return Scored(float(right), answer)
    return _judged(completion) if official else unparsable()


def _choice(question: Question, answer: str, official: bool) -> bool | None:
    """The letter alone, with a full stop or a bracket after it, or the whole option."""
    if answer == question.answer:
        return True
    match = LETTER_FIRST.match(answer) if official else LETTER.fullmatch(answer)
    return None if match is None else match[1] == question.answer[0]


def _yes_no(question: Question, answer: str, official: bool) -> bool | None:
    """A prefix: "nothing" is "no" to the official script; otherwise it must be a word."""
    if official:
        said = next((word for word in ("yes", "no") if answer.lower().startswith(word)), None)
    else:
        match = YES_OR_NO.match(answer)
        said = match[1].lower() if match else None
    return None if said is None else said == question.answer.lower()


def _matching(question: Question, answer: str, official: bool) -> bool | None:
    """A caption by its label (`Caption A` or `A`), its text, or both; officially to the letter."""
    stated = {
        f"{label}: {text}"
        for label, name, text in CAPTION.findall(question.text)
        if (_is_officially if official else _is_plainly)(answer, label, name, text)
    }
    return question.answer in stated if len(stated) == 1 else None


def _is_officially(answer: str, label: str, name: str, text: str) -> bool:
    labels, whole = (label, name), f"{label}: {text}"
    after_bracket = answer.split(") ")[1] if ") " in answer else None
    return answer in (*labels, text, whole) or answer.replace(".", "") in labels or after_bracket == text


def _is_plainly(answer: str, label: str, name: str, text: str) -> bool:
    return any(plain(answer) == plain(form) for form in (label, name, text, f"{label}: {text}"))


CAPTION_PROMPT = (
    "Below are a description of a video and a multiple-choice question about the video. Choose the option that follows "
    "from the description alone. If the description does not tell, or if it contradicts every option, no option "
    "applies.\n\nDescription: {caption}\n\nQuestion: {question}\n\n"
    'Reply in two lines. The first begins with "Reasoning:" and gives your reason in a sentence. The second begins '
    'with "Answer:" and gives the option with its letter, such as "Answer: A. left", or "Answer: none".'
)
ANSWER_PROMPT = (
    "Compare an answer to a question with the right answer. The question may offer options or captions; the answer is "
    "right if it means the same choice as the right answer, whatever its form.\n\nQuestion: {question}\n"
    'Right answer: {truth}\nAnswer: {answer}\n\nReply with one word, "Correct" or "Incorrect".'
)
READERS: dict[str, Any] = {CHOICE: _choice, YES_NO: _yes_no, MATCHING: _matching}


def _judged(completion: Completion) -> Scored:
    """The verdict of a recorded reply: "Correct" or "Incorrect"."""
    reply = completion.judge_reply or ""
    if "orrect" not in reply:
        return Scored(0.0, None, UNJUDGED)
    right = reply.startswith("Correct") or ("Correct" in reply and "Incorrect" not in reply)
    return Scored(float(right), reply, JUDGED)


def judge_prompt(question: Question, text: str) -> str:
    """What a language model is asked: to choose an option from a caption alone, or whether an answer is right."""
    if question.kind == CAPTIONING:
        return CAPTION_PROMPT.format(caption=response_text(text).strip(), question=question.extra["mc_question"])
    return ANSWER_PROMPT.format(question=question.text, truth=question.answer, answer=response_text(text).strip())


def _caption(question: Question, completion: Completion) -> Scored:
    """Whether the option that the judge chose from the caption alone is right: after "Answer:", and no other beside."""
    if completion.judge_reply is None:
        return Scored(0.0, None, UNJUDGED)
    lines = [line.strip() for line in completion.judge_reply.split("\n")]
    chosen = next((line.replace("Answer:", "").strip() for line in reversed(lines) if "Answer" in line), None)
    chosen = completion.judge_reply if chosen is None else chosen
    several = sum(chosen.count(f"{letter}.") for letter in "ABCD") != 1
    right = chosen.split(". ")[0] == question.answer.split(". ")[0] and not several
    return Scored(float(right), chosen, JUDGED)


BENCHMARK = Benchmark(
    name="tempcompass",
    title="TempCompass",
    read=read,
    ask=ask,
    score=score,
    official="answers that no rule matches are judged by a language model, whose recorded judge_reply is read",
    table=mean_of_groups_table("format"),
    judge=judge_prompt,
)
