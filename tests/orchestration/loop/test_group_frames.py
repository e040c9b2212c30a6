"""A group keeps its frames from admission until it is trained or rejected, also across failed generations."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray

from evidence.errors import RunFailed, UnreadableMedia
from evidence.types import FrameInfo, Group, Prompt, Sample, Trajectory
from learner.settings import PackingConfig
from orchestration.loop.admission import Admission
from orchestration.loop.group_maker import GroupMaker
from orchestration.loop.ledger import Ledger, State
from orchestration.loop.pipeline import Draw
from orchestration.loop.step_frames import fetch_frames
from orchestration.pacing import Pacing
from orchestration.reporting.stalls import Ends


class FakeLease:
    frames, info = "frames", None
    releases = 0
    is_lost = False

    async def renew(self) -> None:
        if self.is_lost:
            self.frames, self.is_lost = self.frames + " again", False

    def release(self) -> None:
        self.releases += 1


class FakePipeline:
    """Also its own pool and store. Its engines fail or never answer; the first generation may lose a node."""

    def __init__(self, readable: bool = True, answers: bool = True, loses_a_node: bool = False):
        self.leases: list[FakeLease] = []
        self.counts: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()
        self.group_ends = Ends()
        self.rollout_pool = self.store = self
        self.readable, self.answers, self.loses_a_node = readable, answers, loses_a_node
        self.received: list[str] = []  # frames, by generation

    def lost(self, error: Exception) -> None:
        self.leases[0].is_lost = isinstance(error, ray.exceptions.ObjectLostError)

    async def prepare(self, sample: Sample) -> tuple[FakeLease, None]:
        if not self.readable:
            raise UnreadableMedia("a.mp4", "broken")
        self.leases.append(FakeLease())
        return self.leases[-1], None

    async def generate(self, may_start: Any, prompt: None, frames: str, *_: Any) -> None:
        self.received.append(frames)
        if not self.answers:
            await asyncio.sleep(1000)
        if self.loses_a_node and len(self.received) == 1:
            raise ray.exceptions.ObjectLostError("", b"", "")
        raise TimeoutError


def begin(pipeline: Any, token_budget: int = 100, **switches: bool) -> GroupMaker:
    packing = PackingConfig("prefix", token_budget)
    maker = GroupMaker(pipeline, Admission(Pacing(1)), Ledger(), Draw(2, 1.0, 8), packing, 0, 1, **switches)
    maker.begin(7, Sample("1", "", "", "", "", video_path="a.mp4"))
    return maker


def test_frames_are_kept_across_failed_generations_and_freed_after_the_last() -> None:
    async def loop() -> None:
        pipeline = FakePipeline()
        maker = begin(pipeline)
        await maker.wait(10)
        assert pipeline.received == ["frames"] * 3
        assert [lease.releases for lease in pipeline.leases] == [1]
        assert maker.ledger.state(7) is State.REJECTED
        assert maker.admission.free == 2

    asyncio.run(loop())


class GeneratingPipeline(FakePipeline):
    """Generates completions of 1 and 4 tokens for a prompt of 9; `ends` are their finish reasons."""

    ids = np.zeros(9, np.int32)

    def __init__(self, *ends: str):
        super().__init__()
        self.ends = ends or ("stop", "stop")

    async def prepare(self, sample: Sample) -> tuple[FakeLease, Prompt]:
        lease, _ = await super().prepare(sample)
        return lease, Prompt(self.ids, self.ids, np.zeros((3, 9), np.int32), np.zeros((0, 3), np.int32))

    async def generate(self, *_: Any) -> tuple[tuple[Trajectory, ...], int]:
        drawn = zip((1, 4), self.ends)
        return tuple(Trajectory(self.ids[:n], np.zeros(n), ((0, 0, n),), "", end) for n, end in drawn), 0

    def view(self, *_: Any) -> None:
        raise AssertionError("the group was scored")


def test_with_overlong_filtering_a_group_that_was_cut_throughout_is_rejected_before_scoring() -> None:
    async def loop() -> None:
        pipeline = GeneratingPipeline("length", "length")
        maker = begin(pipeline, overlong_filtering=True)
        await maker.wait(10)
        assert maker.ledger.rejections() == {"overlong": 1}
        assert pipeline.tokens == {"overlong": 5}
        assert [lease.releases for lease in pipeline.leases] == [1]
        assert maker.admission.free == 2
        for ends, filtering in ((("length", "stop"), True), (("length", "length"), False)):
            with pytest.raises(AssertionError, match="the group was scored"):
                await begin(GeneratingPipeline(*ends), overlong_filtering=filtering).wait(10)

    asyncio.run(loop())


def test_a_group_with_a_completion_above_the_token_budget_is_rejected_before_scoring() -> None:
    async def loop() -> None:
        pipeline = GeneratingPipeline()
        maker = begin(pipeline, token_budget=11)  # 9 prompt tokens and 3 of 4 completion tokens are 12
        await maker.wait(10)
        assert maker.ledger.rejections() == {"over_budget": 1}
        assert pipeline.tokens == {"over_budget": 5}
        assert [lease.releases for lease in pipeline.leases] == [1]
        assert maker.admission.free == 2
        fits = begin(GeneratingPipeline(), token_budget=12)
        with pytest.raises(AssertionError, match="the group was scored"):
            await fits.wait(10)

    asyncio.run(loop())


def test_a_generation_whose_frames_were_lost_is_retried_with_new_frames() -> None:
    async def loop() -> None:
        pipeline = FakePipeline(loses_a_node=True)
        maker = begin(pipeline)
        await maker.wait(10)
        assert pipeline.received == ["frames", "frames again", "frames again"]
        assert [lease.releases for lease in pipeline.leases] == [1]

    asyncio.run(loop())


INFO = FrameInfo("key of the group", (0.0,), (28, 28), (28, 28), 1.0)
GROUP = Group(7, Sample("1", "", "", "", "", video_path="a.mp4"), INFO, None, (), 0)


def test_ranks_get_the_frames_that_the_group_was_generated_from_or_none() -> None:
    class RenewedLease:
        frames, info = "frames", INFO

        def __init__(self, renewal: FrameInfo | UnreadableMedia):
            self.renewal = renewal

        async def renew(self) -> None:
            if isinstance(self.renewal, UnreadableMedia):
                raise self.renewal
            self.info = self.renewal

    def fetched(renewal: FrameInfo | UnreadableMedia) -> list[str]:
        frames, _ = asyncio.run(fetch_frames([(GROUP, RenewedLease(renewal))], list, len, SimpleNamespace()))
        return frames

    assert fetched(INFO) == ["frames"]
    with pytest.raises(RunFailed, match=r"a\.mp4: .*another decoder"):
        fetched(replace(INFO, key="by another decoder"))
    with pytest.raises(RunFailed, match=r"a\.mp4: the file changed"):
        fetched(UnreadableMedia("a.mp4", "the file changed"))


@pytest.mark.parametrize("recognised", [True, False])
def test_a_step_is_ready_once_the_ranks_have_all_its_frames(recognised: bool) -> None:
    leases = [FakeLease(), FakeLease()]
    for lease, frames in zip(leases, "ab"):
        lease.frames, lease.info = frames, INFO
    missing, fetched = ["b", "a"], []

    def fetch(parts: list[str]) -> int:
        fetched.append(parts)
        if missing:
            raise ray.exceptions.ObjectLostError(missing.pop(0), b"", "")
        return len(fetched)

    def lost(error: ray.exceptions.ObjectLostError) -> bool:
        for lease in leases:
            lease.is_lost = lease.frames == error.object_ref_hex
        return recognised

    step = fetch_frames([(GROUP, lease) for lease in leases], list, fetch, SimpleNamespace(lost=lost))
    if recognised:
        assert asyncio.run(step) == (["a again", "b again"], 3)
        assert fetched == [["a", "b"], ["a", "b again"], ["a again", "b again"]]
    else:  # the lost object is not the store's: a retry would loop forever
        with pytest.raises(ray.exceptions.ObjectLostError):
            asyncio.run(step)


def test_an_unreadable_file_rejects_its_group() -> None:
    async def loop() -> None:
        maker = begin(FakePipeline(readable=False))
        await maker.wait(10)
        assert maker.ledger.rejections() == {"unreadable media": 1}

    asyncio.run(loop())


@pytest.mark.parametrize("ready", [False, True])
def test_the_end_of_a_run_frees_the_frames_of_untrained_groups(ready: bool) -> None:
    async def loop() -> None:
        pipeline = FakePipeline(answers=False)
        maker = begin(pipeline)
        await asyncio.sleep(0.05)
        if ready:
            maker.ready[7] = type("Ready", (), {"lease": pipeline.leases[0]})()
        await maker.stop()
        assert [lease.releases for lease in pipeline.leases] == [1]

    asyncio.run(loop())
