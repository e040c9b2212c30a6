"""Prompt templates: the texts around a video's frames and its question.

Templates are data. configs/templates/ holds one file per style; a run may include one of them or define its own.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from dataclasses import dataclass, field

from evidence.config_checks import require_one_of
from evidence.errors import BadInput
from evidence.numbers import read_time
from evidence.spaces import SPACES
from evidence.types import Sample

# The key of `PromptTemplate.tasks` for tasks that are not listed.
OTHER = "other"
# The value of {box_units} for each of evidence.spaces.SPACES.
BOX_UNITS = {
    "resized": "pixels",
    "original": "original pixels",
    "thousand": "0-1000 coordinates",
    "normalised": "0-1 coordinates",
}


@dataclass
class PromptTemplate:
    """The policy's prompt for a video and a question.

    frame: text before each frame; may use {index} (from 1), {index0} (from 0) and {time} (seconds).
    question: text after the last frame; may use {question}, {duration} (seconds), {task} and {box_units}.
    tasks: the text for {task} by the sample's task, ignoring case, with "other" for tasks that are not listed; may use
        {duration} and {box_units}.
    box_space: the space of boxes in the policy's completions, a key of evidence.spaces.SPACES; {box_units} names it.
    native_video: show a video as the model's own video tokens instead of images. `frame` is not used then.
    """

    frame: str = "Frame {index} at {time:.1f}s: "
    question: str = (
        "\nThe video is {duration:.1f} seconds long.\nQuestion: {question}\n"
        "Think first, and name what you see as evidence while you think: "
        "<think> ... <obj>object name</obj><box>[x1,y1,x2,y2]</box>at<t>time</t>s ... </think>, boxes in {box_units} "
        "of the frame and times in seconds. Then give the answer: <answer> ... </answer>."
    )
    tasks: dict[str, str] = field(default_factory=lambda: {OTHER: ""})
    box_space: str = "resized"
    native_video: bool = False

    def __post_init__(self) -> None:
        if OTHER not in self.tasks:
            raise BadInput(f"tasks: has no key {OTHER!r}; add it, with the text for tasks that are not listed")
        require_one_of(self, SPACES, "box_space")
        _check("frame", self.frame, index=1, index0=0, time=0.0)
        _check("question", self.question, question="", duration=0.0, task="", box_units="")
        for task, text in self.tasks.items():
            _check(f"tasks.{task}", text, duration=0.0, box_units="")

    def ask(self, sample: Sample, duration: float) -> str:
        """The text after the last frame of a video that lasts `duration` seconds."""
        texts = {task.casefold(): text for task, text in self.tasks.items()}
        units = BOX_UNITS[self.box_space]
        task = texts.get(sample.task.casefold(), self.tasks[OTHER]).format(duration=duration, box_units=units)
        return self.question.format(question=sample.asked, duration=duration, task=task, box_units=units)

    def printed_durations(self, duration: float) -> set[float]:
        """The values, in seconds, that `ask` prints for `duration`, in the texts for any task."""
        return {value for text in (self.question, *self.tasks.values()) for value in printed(text, duration=duration)}


def printed(text: str, **values: float) -> Iterator[float]:
    """The moments, in seconds, that `text.format(**values)` prints for the first of `values`, as they are read back
    from a completion. A value in a form that no time has, such as an exponent, gives none."""
    name = next(iter(values))
    for _, field_name, spec, conversion in string.Formatter().parse(text):
        if field_name is not None and field_name.partition(".")[0] == name:
            replacement = f"{{{field_name}{f'!{conversion}' if conversion else ''}:{spec}}}"
            moment = read_time(replacement.format(**values))
            if moment.time is not None:
                yield moment.time


def _check(key: str, text: str, **values: float | str) -> None:
    try:
        text.format(**values)
    except (LookupError, ValueError, AttributeError, TypeError) as error:
        known = ", ".join(f"{{{name}}}" for name in values)
        raise BadInput(f"{key} = {text!r}: may only use {known}; write a literal brace twice ({error})") from None
