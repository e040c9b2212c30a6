"""The task of the learner's benchmark has the requested sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.learner_task import make_task, vision_flops, write


def test_the_task_has_the_requested_tokens_and_frames(tiny_model: Path, encoder: Any, tmp_path: Path) -> None:
    task = make_task(tiny_model, prompt_tokens=300, completion_tokens=200, group=4, sizes=None)
    assert len(task.prompt.token_ids) == 300
    assert task.completions.shape == task.behaviour.shape == (4, 200)
    assert not np.isin(task.completions, [*encoder.banned_ids, *encoder.stop_ids]).any()
    assert encoder.is_visual(task.prompt.token_ids).sum() > 150, "a text-only prompt would make the benchmark easier"
    assert abs(task.advantages.sum()) < 1e-5

    write(task, tiny_model, tmp_path / "task.npz")
    arrays = np.load(tmp_path / "task.npz")
    assert len(arrays["pixel_values"]) == arrays["image_grid_thw"].prod(1).sum()
    tower, whole = vision_flops(task, tiny_model)
    assert 0.05 < tower / whole < 0.95


def test_a_prompt_too_short_for_a_frame_is_refused(tiny_model: Path) -> None:
    with pytest.raises(ValueError, match="prompt = 40: a prompt of 1 frames has"):
        make_task(tiny_model, prompt_tokens=40, completion_tokens=4, group=2, sizes=None)
