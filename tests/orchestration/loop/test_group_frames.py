"""A group holds its frames from its admission until it is trained or rejected, across failed generations."""

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


class FakeLease:
    frames, info = "frames", None
    releases = 0
    is_lost = False

    async def renew(self) -> None:
        if self.is_lost:
            self.frames, self.is_lost = self.frames + " anew", False

    def release(self) -> None:
        self.releases += 1


class FakePipeline:
    """Its engines fail, or never answer; its node may be lost under the first generation."""

    def __init__(self, readable: bool = True, answers: bool = True, loses_a_node: bool = False):
        self.leases: list[FakeLease] = []
        self.counts: Counter[str] = Counter()
        self.rollout_pool = self.store = self
        self.readable, self.answers, self.loses_a_node = readable, answers, loses_a_node
        self.given: list[str] = []

    def lost(self, error: Exception) -> None:
        self.leases[0].is_lost = isinstance(error, ray.exceptions.ObjectLostError)

    async def prepare(self, sample: Sample) -> tuple[FakeLease, None]:
        if not self.readable:
            raise UnreadableMedia("a.mp4", "broken")
        self.leases.append(FakeLease())
        return self.leases[-1], None

    async def generate(self, may_start: Any, prompt: None, frames: str, *_: Any) -> None:
        self.given.append(frames)
        if not self.answers:
            await asyncio.sleep(1000)
        if self.loses_a_node and len(self.given) == 1:
            raise ray.exceptions.ObjectLostError("", b"", "")
        raise TimeoutError


def begin(pipeline: Any, token_budget: int = 100) -> GroupMaker:
    packing = PackingConfig("prefix", token_budget)
    maker = GroupMaker(pipeline, Admission(Pacing(1)), Ledger(), Draw(2, 1.0, 8), packing, 0, 1)
    maker.begin(7, Sample("1", "", "", "", "", video_path="a.mp4"))
    return maker


def test_failed_generations_keep_the_frames_and_the_last_one_frees_them() -> None:
    async def loop() -> None:
        pipeline = FakePipeline()
        maker = begin(pipeline)
        await maker.wait(10)
        assert pipeline.given == ["frames"] * 3
        assert [lease.releases for lease in pipeline.leases] == [1]
        assert maker.ledger.state(7) is State.REJECTED
        assert maker.admission.free == 2

    asyncio.run(loop())


def test_a_group_with_a_completion_above_the_token_budget_is_rejected_before_anyone_is_asked_about_it() -> None:
    ids = np.zeros(9, np.int32)

    class Writes(FakePipeline):
        async def prepare(self, sample: Sample) -> tuple[FakeLease, Prompt]:
            lease, _ = await super().prepare(sample)
            return lease, Prompt(ids, ids, np.zeros((3, 9), np.int32), np.zeros((0, 3), np.int32))

        async def generate(self, *_: Any) -> tuple[tuple[Trajectory, ...], int]:
            return tuple(Trajectory(ids[:n], np.zeros(n), ((0, 0, n),), "", "stop") for n in (1, 4)), 0

        def view(self, *_: Any) -> None:
            raise AssertionError("the reward was asked")

    async def loop() -> None:
        pipeline = Writes()
        maker = begin(pipeline, token_budget=11)  # the prompt and three of four tokens are 12
        await maker.wait(10)
        assert maker.ledger.rejections() == {"over_budget": 1}
        assert [lease.releases for lease in pipeline.leases] == [1]
        assert maker.admission.free == 2
        fits = begin(Writes(), token_budget=12)
        with pytest.raises(AssertionError, match="the reward was asked"):
            await fits.wait(10)

    asyncio.run(loop())


def test_a_generation_whose_frames_were_lost_is_tried_again_with_fresh_ones() -> None:
    async def loop() -> None:
        pipeline = FakePipeline(loses_a_node=True)
        maker = begin(pipeline)
        await maker.wait(10)
        assert pipeline.given == ["frames", "frames anew", "frames anew"]
        assert [lease.releases for lease in pipeline.leases] == [1]

    asyncio.run(loop())


MADE = FrameInfo("as made", (0.0,), (28, 28), (28, 28), 1.0)
GROUP = Group(7, Sample("1", "", "", "", "", video_path="a.mp4"), MADE, None, (), 0)


def test_ranks_are_handed_the_frames_a_group_was_made_with_or_none() -> None:
    class Lease:
        frames, info = "frames", MADE

        def __init__(self, renewed: FrameInfo | UnreadableMedia):
            self.renewed = renewed

        async def renew(self) -> None:
            if isinstance(self.renewed, UnreadableMedia):
                raise self.renewed
            self.info = self.renewed

    def handed(renewed: FrameInfo | UnreadableMedia) -> list[str]:
        found, _ = asyncio.run(fetch_frames([(GROUP, Lease(renewed))], list, len, SimpleNamespace()))
        return found

    assert handed(MADE) == ["frames"]
    with pytest.raises(RunFailed, match=r"a\.mp4: .*another decoder"):
        handed(replace(MADE, key="by another decoder"))
    with pytest.raises(RunFailed, match=r"a\.mp4: the file changed"):
        handed(UnreadableMedia("a.mp4", "the file changed"))


@pytest.mark.parametrize("known", [True, False])
def test_a_step_is_ready_once_the_ranks_have_all_its_frames(known: bool) -> None:
    leases = [FakeLease(), FakeLease()]
    for lease, frames in zip(leases, "ab"):
        lease.frames, lease.info = frames, MADE
    missing, fetched = ["b", "a"], []

    def fetch(parts: list[str]) -> int:
        fetched.append(parts)
        if missing:
            raise ray.exceptions.ObjectLostError(missing.pop(0), b"", "")
        return len(fetched)

    def lost(error: ray.exceptions.ObjectLostError) -> bool:
        for lease in leases:
            lease.is_lost = lease.frames == error.object_ref_hex
        return known

    step = fetch_frames([(GROUP, lease) for lease in leases], list, fetch, SimpleNamespace(lost=lost))
    if known:
        assert asyncio.run(step) == (["a anew", "b anew"], 3)
        assert fetched == [["a", "b"], ["a", "b anew"], ["a anew", "b anew"]]
    else:  # what was lost is no frames: to try again would be for ever
        with pytest.raises(ray.exceptions.ObjectLostError):
            asyncio.run(step)


def test_an_unreadable_file_rejects_its_group() -> None:
    async def loop() -> None:
        maker = begin(FakePipeline(readable=False))
        await maker.wait(10)
        assert maker.ledger.rejections() == {"unreadable media": 1}

    asyncio.run(loop())


@pytest.mark.parametrize("ready", [False, True])
def test_the_end_of_a_run_frees_what_was_not_trained(ready: bool) -> None:
    async def loop() -> None:
        pipeline = FakePipeline(answers=False)
        maker = begin(pipeline)
        await asyncio.sleep(0.05)
        if ready:
            maker.ready[7] = type("Ready", (), {"lease": pipeline.leases[0]})()
        await maker.stop()
        assert [lease.releases for lease in pipeline.leases] == [1]

    asyncio.run(loop())
