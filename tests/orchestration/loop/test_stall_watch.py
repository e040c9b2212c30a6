"""Whether, when and about which groups a stalled run says who waits for whom."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from evidence.errors import UnreadableMedia
from evidence.types import Sample
from learner.settings import PackingConfig
from orchestration.loop.admission import Admission
from orchestration.loop.group_maker import GroupMaker, Stalled
from orchestration.loop.ledger import Ledger
from orchestration.loop.pipeline import Draw
from orchestration.pacing import Pacing
from orchestration.reporting.stalls import Ends, EngineFacts, RefereeFacts

SAMPLE = Sample("1", "", "", "", "", video_path="a.mp4")


class Pipeline:
    """Group 0 is generated on engine 3 and never ends; group 1 ends, without frames, when `end` is set."""

    def __init__(self) -> None:
        self.rollout_pool = self.store = self.referee = self
        self.group_ends, self.no_room = Ends(), 1
        self.tokens: Counter[str] = Counter()
        self.task: asyncio.Task[Any] | None = None
        self.end = asyncio.Event()

    async def prepare(self, sample: Sample) -> Any:
        if self.task is not None:
            await self.end.wait()
            raise UnreadableMedia("a.mp4", "is gone")
        return SimpleNamespace(frames=None, info=None, renew=self.renew, release=lambda: None), None

    async def renew(self) -> None: ...

    async def generate(self, *_: Any) -> Any:
        self.task = asyncio.current_task()
        await asyncio.sleep(1000)

    def running(self, task: asyncio.Task[Any]) -> tuple[float, str] | None:
        return (asyncio.get_running_loop().time(), "rollout engine 3") if task is self.task else None

    def engine_facts(self) -> list[EngineFacts]:
        return [EngineFacts("rollout engine 3", 0, 1)]

    def facts(self) -> list[RefereeFacts]:
        return [RefereeFacts("referee 0", 0)]


REPORT = [
    "  learner: waits for groups, for 0:00; 0 groups are ready, a step takes 2",
    "  group 0, which holds back those after it: waits for its completions, on rollout engine 3, for 0:00",
    "  waiting for their frames: group 1, the longest for 0:00; 1 for room in the frame store (cluster.frames_gib)",
    "  waiting for their completions: group 0, the longest for 0:00",
    "  rollout engine 3: version 0, generates 1 groups (0)",
]


async def begun(pipeline: Any) -> GroupMaker:
    maker = GroupMaker(pipeline, Admission(Pacing(2)), Ledger(), Draw(2, 1.0, 8), PackingConfig(), 0, 1)
    for group in range(2):
        maker.begin(group, SAMPLE)
        await asyncio.sleep(0.01)
    return maker


def test_a_stall_is_reported_every_quarter_and_in_the_error_that_ends_the_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def stall() -> None:
        maker = await begun(Pipeline())
        maker.on_stall(told.append)
        await maker.wait(0.4)

    told: list[str] = []
    with pytest.raises(Stalled) as stalled:
        asyncio.run(stall())
    first, *rest = str(stalled.value).splitlines()
    assert first == "no group ended within 0.4 s (limits.stall_s); the groups are 1 pending, 1 generating"
    assert rest == REPORT
    assert [message.splitlines() for message in caplog.messages] == [["no group has ended for 0:00:", *REPORT]] * 3
    assert told == caplog.messages, "for wandb"


def test_the_quarters_begin_anew_when_a_group_ends_and_a_run_that_stops_is_silent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def go_on() -> None:
        pipeline = Pipeline()
        maker = await begun(pipeline)
        asyncio.get_running_loop().call_later(0.3, pipeline.end.set)
        await maker.wait(2.0)
        await asyncio.sleep(0.35)  # until the first quarter would have ended
        assert 0.25 < pipeline.group_ends.longest_s(pipeline.group_ends.last or 0) < 0.5
        await maker.stop()
        await asyncio.sleep(0.7)

    asyncio.run(go_on())
    assert "no group has ended" not in caplog.text
