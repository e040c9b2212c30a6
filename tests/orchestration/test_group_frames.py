"""A group holds its frames from its admission until it is trained or rejected, across failed generations."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from evidence.errors import UnreadableMedia
from evidence.types import Sample
from orchestration.admission import Admission, Pacing
from orchestration.groups import Draw, GroupMaker
from orchestration.ledger import Ledger, State


class FakeLease:
    frames = info = None
    releases = 0

    def release(self) -> None:
        self.releases += 1


class FakeHouse:
    """Its engines fail, or never answer."""

    def __init__(self, readable: bool = True, answers: bool = True):
        self.leases: list[FakeLease] = []
        self.counts: Counter[str] = Counter()
        self.fleet = self
        self.readable, self.answers, self.generations = readable, answers, 0

    async def look(self, sample: Sample) -> tuple[FakeLease, None]:
        if not self.readable:
            raise UnreadableMedia("a.mp4", "broken")
        self.leases.append(FakeLease())
        return self.leases[-1], None

    async def generate(self, *_: Any) -> None:
        self.generations += 1
        if not self.answers:
            await asyncio.sleep(1000)
        raise TimeoutError


def begin(house: Any) -> GroupMaker:
    maker = GroupMaker(house, Admission(Pacing(1)), Ledger(), Draw(2, 1.0, 8), 0, 1)
    maker.begin(7, Sample("1", "", "", "", "", video_path="a.mp4"))
    return maker


def test_failed_generations_keep_the_frames_and_the_last_one_frees_them() -> None:
    async def loop() -> None:
        house = FakeHouse()
        maker = begin(house)
        await maker.wait(10)
        assert house.generations == 3
        assert [lease.releases for lease in house.leases] == [1]
        assert maker.ledger.state(7) is State.REJECTED
        assert maker.admission.free == 2

    asyncio.run(loop())


def test_an_unreadable_file_rejects_its_group() -> None:
    async def loop() -> None:
        maker = begin(FakeHouse(readable=False))
        await maker.wait(10)
        assert maker.ledger.rejections() == {"unreadable media": 1}

    asyncio.run(loop())


@pytest.mark.parametrize("ready", [False, True])
def test_the_end_of_a_run_frees_what_was_not_trained(ready: bool) -> None:
    async def loop() -> None:
        house = FakeHouse(answers=False)
        maker = begin(house)
        await asyncio.sleep(0.05)
        if ready:
            maker.ready[7] = type("Ready", (), {"lease": house.leases[0]})()
        await maker.stop()
        assert [lease.releases for lease in house.leases] == [1]

    asyncio.run(loop())
