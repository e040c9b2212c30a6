"""The loss of the learner within a run, in the real loop with the fakes of test_rejections."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_rejections import FakeLease, started
from test_run_state import scored

from evidence.types import Sample
from orchestration.loop.group_maker import GroupMaker
from orchestration.supervision.waiting import ActorLost


def always(group: int) -> bool:
    return True


def never(group: int) -> bool:
    return False


def test_the_frames_of_a_step_in_which_the_learner_is_lost_are_released(tmp_path: Path) -> None:
    run, training = started(tmp_path, always, never, 6)
    train = training.parts.learner.train

    async def lost_in_third(groups: list[Any], step: int, store: Any) -> dict[str, float]:
        if step == 2:
            raise ActorLost("learner rank 1 died while taking an optimizer step")
        return await train(groups, step, store)

    training.parts.learner.train = lost_in_third
    FakeLease.unreleased = 0
    with pytest.raises(ActorLost):
        asyncio.run(run._train(training))
    assert FakeLease.unreleased == 0, "the next lineage needs their room in the store"


def test_the_frames_of_ready_groups_are_decoded_at_once_when_a_run_goes_on(tmp_path: Path) -> None:
    _, training = started(tmp_path, always, never, 6)
    groups, decoding = range(4), 0
    everything = asyncio.Event()

    async def prepare(sample: Sample) -> tuple[Any, None]:
        nonlocal decoding
        decoding += 1
        if decoding == len(groups):
            everything.set()
        await everything.wait()
        return FakeLease(), None

    async def restore() -> GroupMaker:
        maker = training.maker
        maker.pipeline.prepare = prepare  # type: ignore[method-assign, assignment]
        await maker.restore([(group, training.inputs.train[group]) for group in groups], ready, 5.0)
        return maker

    ready: Any = {group: scored_group(group) for group in groups}
    assert set(asyncio.run(restore()).ready) == set(groups)


def scored_group(group: int) -> Any:
    made = scored([0.0, 1.0])
    return replace(made, group=replace(made.group, id=group, oldest_version=0, frames=FakeLease.info))
