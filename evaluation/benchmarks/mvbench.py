"""MVBench: 20 tasks with options in "(A)"; the mean of the tasks is published.

Files: a folder with one JSON list per task, whose name is the task. A question has no id: it is `task/position`. Rows
with `start` and `end`, in seconds, are about that part of their video, and nothing else of it is shown.

The videos of one task, TVQA's, are folders of frames, whose rate and bounds are those of the published script.
"""

from __future__ import annotations

from collections.abc import Iterator

from evaluation.benchmark import Benchmark, Completion, Question, Scored, mean_of_groups_table, unparsable
from evaluation.choices import LETTERS, answer_text, response_text, right_letter, score_letter, stated_letter
from evaluation.reading import PlacedRow, row_of, texts
from rollout.dataset.row import Row

INSTRUCTION = "Answer with the letter of the right option in brackets only, such as (A)."

# The task whose videos are folders of frames (tvqa/frames_fps3_hq), and the default rate of the script's `read_frame`.
FRAMES_TASK, FRAMES_FPS = "episodic_reasoning", 3.0


def read(placed: PlacedRow) -> Iterator[Question]:
    row = row_of(placed)
    options = texts(row.value("candidates"), "candidates")
    task = row.optional_text("task_type") or placed.file.name.partition(".")[0]
    part = _part(row)
    in_frames = task.lower().replace(" ", "_") == FRAMES_TASK
    yield Question(
        id=f"{task}/{placed.position}",
        video=row.text("video"),
        text=row.text("question"),
        answer=_right(row.text("answer"), options),
        options=options,
        groups={"task": (task,)},
        part=_part_in_frames(*part) if in_frames and part else part,
        fps=FRAMES_FPS if in_frames else None,
    )


def _part(row: Row) -> tuple[float, float] | None:
    start, end = row.optional_amount("start"), row.optional_amount("end")
    if start is None or end is None:
        return None
    if start >= end:
        raise ValueError(f"its part of the video ends before it begins: start {start:g}, end {end:g}")
    return start, end


def _part_in_frames(start: float, end: float) -> tuple[float, float]:
    """The times at which the first and the last frame begin that the published script shows. It numbers frames from 1,
    and shows those from max(1, round(start * fps)) to round(end * fps); time 0 is frame 1."""
    first = max(1, round(start * FRAMES_FPS))
    last = max(first, round(end * FRAMES_FPS))
    return (first - 1) / FRAMES_FPS, (last - 1) / FRAMES_FPS


def _right(answer: str, options: tuple[str, ...]) -> str:
    """The letter of the option whose text the answer is; options may be single letters or numbers themselves."""
    return LETTERS[options.index(answer)] if answer in options else right_letter(answer, options)


def ask(question: Question) -> str:
    options = (f"({letter}) {option}" for letter, option in zip(LETTERS, question.options))
    return "\n".join((question.text, *options, INSTRUCTION))


def score(question: Question, completion: Completion, official: bool) -> Scored:
    if not official:
        answer = answer_text(completion.text)
        return score_letter(question, None if answer is None else stated_letter(answer, question.options))
    word = response_text(completion.text).lower().split(" ")[0]
    if not word.strip("."):
        return unparsable()
    right = f"({question.answer.lower()})"
    return Scored(float(word.replace(".", "") in right or right in word), word)


BENCHMARK = Benchmark(
    name="mvbench",
    title="MVBench",
    read=read,
    ask=ask,
    score=score,
    official='the first word, in lower case without full stops, counts if it lies in "(a)", or "(a)" in it',
    table=mean_of_groups_table("task"),
    headline=("mean_of_tasks",),
)
