"""The held-out evaluation: its line, its records, and what happens when a node is lost during it."""

from __future__ import annotations

import asyncio
import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray

from evidence.grammar import Completion, parse
from evidence.types import FrameInfo, Sample, Trajectory
from orchestration.loop import heldout
from orchestration.loop.clips import on_all_engines
from orchestration.loop.heldout import evaluate, evaluate_policy
from orchestration.loop.pipeline import Draw
from referee.reward.ser import Ser

COMPLETION = "<think>It is there.</think><answer>top left</answer>"
SAMPLE = Sample("clip-0", "shapes", "temporal-spatial free-form QA", "Where is it?", "top left", video_path="a.mp4")


class FakePipeline:
    """Also its own referee and pool. Every attempt leases frames; those of the first `losses` attempts are lost."""

    published = 0

    def __init__(self, losses: int):
        self.losses, self.leases = losses, 0
        self.reported: list[Exception] = []
        self.referee = self.rollout_pool = self
        self.store = SimpleNamespace(lost=self.reported.append)

    async def forget(self) -> None:
        pass

    async def prepare(self, sample: Sample) -> tuple[AbstractContextManager[Any], None]:
        self.leases += 1
        info = FrameInfo("key", (0.0, 1.0), (56, 56), (56, 56), 2.0)
        lease: Any = nullcontext()
        lease.frames, lease.info = None, info
        return lease, None

    async def generate(self, *_: Any) -> tuple[tuple[Trajectory], int]:
        if self.leases <= self.losses:
            raise ray.exceptions.ObjectLostError("", b"", "")
        ids = np.zeros(1, np.int32)
        return (Trajectory(ids, np.zeros(1, np.float32), ((0, 0, 1),), COMPLETION, "stop"),), 0

    def parse(self, text: str, info: FrameInfo) -> Completion:
        return parse(text)


def test_a_clip_whose_frames_are_lost_is_retried_with_new_frames() -> None:
    pipeline: Any = FakePipeline(losses=2)
    complete = on_all_engines(pipeline)
    (evaluation,) = asyncio.run(evaluate(pipeline, Ser(), [SAMPLE], Draw(1, 0.0, 8), 0, complete))
    assert (evaluation.clip, evaluation.accuracy) == ("clip-0", 1.0)
    assert [type(error) for error in pipeline.reported] == [ray.exceptions.ObjectLostError] * 2
    assert pipeline.leases == 3


def test_box_iou_is_a_dash_without_labels_and_the_evaluation_is_announced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    awaited: list[str] = []
    monkeypatch.setattr(heldout, "awaiting", lambda part: awaited.append(part) or nullcontext())
    pipeline: Any = FakePipeline(losses=0)
    config: Any = SimpleNamespace(
        sampling=SimpleNamespace(temperature=1.0, max_tokens=8), eval=SimpleNamespace(ser=Ser()), seed=0
    )
    asyncio.run(evaluate_policy(pipeline, config, [SAMPLE], "before", tmp_path))
    line = "held-out clips before: r_SER 0.000, box IoU -, accuracy 1.000 (greedy, 1 of 1 clips readable, "
    assert capsys.readouterr().out.startswith(line)
    assert json.loads((tmp_path / "heldout_before_greedy.jsonl").read_text())["iou"] is None
    assert awaited == ["evaluation before training (1 clips)"]
