"""Boxes that a policy writes in another space than pixels are judged, measured and recorded in pixels."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evidence.lines import AppendedLines
from evidence.sampling import SamplingContract
from evidence.types import Claim, FrameInfo, KeyFrame, Sample, Trajectory, Verdict
from learner.settings import PackingConfig
from orchestration.loop.admission import Admission
from orchestration.loop.clips import on_all_engines
from orchestration.loop.group_maker import GroupMaker
from orchestration.loop.heldout import evaluate
from orchestration.loop.ledger import Ledger
from orchestration.loop.pipeline import Draw, Pipeline
from orchestration.pacing import Pacing
from orchestration.reporting.samples import write_samples
from referee.reward.graph import RewardGraph
from referee.reward.ser import Ser
from referee.reward.settings import RewardConfig, TermConfig
from rollout.prompt import ChatEncoder
from rollout.template import PromptTemplate

ROOT = Path(__file__).parents[2]
INFO = FrameInfo("key", (0.0,), size=(56, 84), original_size=(640, 480), duration=1.0)
SAMPLE = Sample(
    id="1",
    source="s",
    task="t",
    question="Where is the cup?",
    answer="left",
    video_path="a.mp4",
    key_frames=(KeyFrame("0", 0.0),),
    key_items={"0": {"cup": ((0.25, 0.5, 0.75, 1.0),)}},
)
PIXELS = (14, 42, 42, 84)
GRAPH = RewardGraph(RewardConfig(terms={"ser": TermConfig(options={"m_min": 1})}))
WRITTEN = {
    "resized": "[14,42,42,84]",
    "original": "[160,240,480,480]",
    "thousand": "[250,500,750,1000]",
    "normalised": "[.25,.5,.75,1]",
}


class Lease:
    frames, info = None, INFO

    async def renew(self) -> None: ...

    def release(self) -> None: ...

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: Any) -> None: ...


class Store:
    contract = SamplingContract(multiple=28)

    async def lease(self, *_: Any) -> Lease:
        return Lease()


class Engines:
    """Write the requested number of completions, each with one claim."""

    def __init__(self, box: str):
        self.text = f"<think><obj>cup</obj><box>{box}</box>at<t>0.0</t>s</think><answer>left</answer>"

    async def generate(self, *request: Any) -> tuple[tuple[Trajectory, ...], int]:
        completion = Trajectory(np.zeros(1, np.int32), np.zeros(1, np.float32), ((0, 0, 1),), self.text, "stop")
        return (completion,) * request[3], 0


class Referee:
    def __init__(self) -> None:
        self.boxes: list[Any] = []

    async def verify(self, question: str, claims: list[Claim], *_: Any) -> list[Verdict]:
        self.boxes += [claim.box for claim in claims]
        return [Verdict(1.0, 1.0)] * len(claims)

    async def forget(self) -> None: ...


@pytest.fixture(params=list(WRITTEN))
def pipeline(request: pytest.FixtureRequest) -> Pipeline:
    template = PromptTemplate(box_space=request.param)
    encoder = ChatEncoder(ROOT / "assets/policy")
    return Pipeline(Engines(WRITTEN[request.param]), Referee(), Store(), encoder, template, GRAPH)


def test_referee_reward_and_record_of_a_group_use_pixels(pipeline: Pipeline, tmp_path: Path) -> None:
    async def loop() -> GroupMaker:
        maker = GroupMaker(pipeline, Admission(Pacing(1)), Ledger(), Draw(2, 1.0, 8), PackingConfig(), 0, 1)
        maker.begin(0, SAMPLE)
        await maker.wait(10)
        return maker

    scored = asyncio.run(loop()).ready[0].scored
    assert pipeline.referee.boxes == [PIXELS] * 2
    assert scored.terms["ser"].tolist() == [1, 1]
    write_samples(AppendedLines(tmp_path / "samples.jsonl"), 1, scored)
    line = json.loads((tmp_path / "samples.jsonl").read_text().splitlines()[0])
    assert line["claims"][0]["box"] == list(PIXELS)


def test_a_held_out_clip_is_measured_in_pixels(pipeline: Pipeline) -> None:
    (record,) = asyncio.run(
        evaluate(pipeline, Ser(m_min=1), [SAMPLE], Draw(1, 0.0, 8), 0, on_all_engines(pipeline.rollout_pool))
    )
    assert pipeline.referee.boxes == [PIXELS]
    assert (record.iou, record.box_area, record.reward) == (1.0, pytest.approx(0.25), 1.0)
