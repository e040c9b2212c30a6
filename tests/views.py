"""Views made from the texts of completions, for tests of terms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from evidence.grammar import parse
from evidence.types import FrameInfo, Sample
from referee.terms.view import GroupView

# Eight frames, one per second, of 200x100 pixels, shown at half the size.
FRAMES = FrameInfo("k", tuple(map(float, range(8))), (100, 50), (200, 100), 8.0)


def sample(task: str = "General video QA Free-form", answer: str = "a red cup", **fields: Any) -> Sample:
    return Sample("1", "test", task, "What is it?", answer, video_path="a.mp4", **fields)


def view(of: Sample, *texts: str, frames: FrameInfo | None = FRAMES, **fields: Any) -> GroupView:
    return replace(GroupView(of, texts, tuple(map(parse, texts)), frames), **fields)


def answered(of: Sample, *answers: str) -> GroupView:
    """Completions with the same thought and these answers."""
    return view(of, *(f"<think>I look.</think><answer>{answer}</answer>" for answer in answers))


def thought(of: Sample, *thoughts: str) -> GroupView:
    """Completions with these thoughts and the same answer."""
    return view(of, *(f"<think>{think}</think><answer>yes</answer>" for think in thoughts))
