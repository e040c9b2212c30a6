"""How the policy is asked: the texts around a video's frames and its question.

Texts are data: configs/templates/ holds one file per style, any run may include one of them or bring its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from evidence.errors import BadInput
from evidence.types import Sample

# The key of `PromptTemplate.tasks` for tasks that it does not name.
OTHER = "other"


@dataclass
class PromptTemplate:
    """How a video and a question are put to the policy.

    frame: text before each frame; may use {index} (from 1) and {time} (seconds).
    question: text after the last frame; may use {question}, {duration} (seconds) and {task}.
    tasks: what stands for {task}, by the sample's task in whatever case, "other" for any that is not named; may use
        {duration}.
    native_video: whether a video is shown as the model's own video tokens, not as images. `frame` is unused then.
    """

    frame: str = "Frame {index} at {time:.1f}s: "
    question: str = (
        "\nThe video is {duration:.1f} seconds long.\nQuestion: {question}\n"
        "Think first, and name what you see as evidence while you think: "
        "<think> ... <obj>object name</obj><box>[x1,y1,x2,y2]</box>at<t>time</t>s ... </think>, boxes in pixels of the "
        "frame and times in seconds. Then give the answer: <answer> ... </answer>."
    )
    tasks: dict[str, str] = field(default_factory=lambda: {OTHER: ""})
    native_video: bool = False

    def __post_init__(self) -> None:
        if OTHER not in self.tasks:
            raise BadInput(f"template.tasks: has no key {OTHER!r}; say how to ask for the answer of any other task")
        _check("template.frame", self.frame, index=1, time=0.0)
        _check("template.question", self.question, question="", duration=0.0, task="")
        for task, text in self.tasks.items():
            _check(f"template.tasks.{task}", text, duration=0.0)

    def ask(self, sample: Sample, duration: float) -> str:
        """The text after the last frame of a video of `duration` seconds."""
        texts = {task.casefold(): text for task, text in self.tasks.items()}
        task = texts.get(sample.task.casefold(), self.tasks[OTHER]).format(duration=duration)
        return self.question.format(question=sample.asked, duration=duration, task=task)


def _check(key: str, text: str, **values: float | str) -> None:
    try:
        text.format(**values)
    except (LookupError, ValueError, AttributeError, TypeError) as error:
        known = ", ".join(f"{{{name}}}" for name in values)
        raise BadInput(f"{key} = {text!r}: it may use {known}; a brace itself is written twice ({error})") from None
