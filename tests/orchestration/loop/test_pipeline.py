"""What a reward sees of drawn completions."""

from __future__ import annotations

from typing import Any

import numpy as np

from evidence.types import FrameInfo, Sample, Trajectory
from orchestration.loop.pipeline import Pipeline
from rollout.template import PromptTemplate


def test_a_view_holds_the_lengths_and_the_limit_of_the_completions() -> None:
    parts: Any = (None,) * 4
    pipeline = Pipeline(*parts, PromptTemplate(), None, max_tokens=9)  # type: ignore[arg-type]
    drawn = Trajectory(np.zeros(4, np.int32), np.zeros(4, np.float32), ((0, 0, 4),), "left", "stop")
    sample = Sample("1", "test", "general", "Where?", "left", video_path="a.mp4")
    view = pipeline.view(sample, FrameInfo("k", (0.0,), (56, 56), (56, 56), 1.0), (drawn,), 0.5)
    assert (view.texts, view.lengths, view.max_tokens, view.progress) == (("left",), (4,), 9, 0.5)
