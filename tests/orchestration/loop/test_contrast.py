"""Completions on shuffled frames are drawn only where there is an order to shuffle."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from evidence.types import FrameInfo, Sample
from learner.settings import PackingConfig
from orchestration.loop.admission import Admission
from orchestration.loop.group_maker import GroupMaker, another_order
from orchestration.loop.ledger import Ledger
from orchestration.loop.pipeline import Draw
from orchestration.pacing import Pacing
from referee.terms.view import GroupView

VIDEO = Sample("v", "test", "general", "Where?", "left", video_path="a.mp4")
IMAGE = Sample("i", "test", "general", "Where?", "left", image_path="a.png")


def drawn(sample: Sample, frames: int) -> list[tuple[int, tuple[int, ...]]]:
    """(completions, order of the frames) of each generation of contrast completions of a group of four."""
    orders: list[tuple[int, tuple[int, ...]]] = []

    async def generate(may_start: Any, prompt: Any, frames: Any, n: int, *rest: Any) -> tuple[tuple[()], int]:
        orders.append((n, rest[-1]))
        return (), 0

    pipeline: Any = SimpleNamespace(
        tokens=Counter(),
        reward=SimpleNamespace(needs_for=lambda task: frozenset({"contrast"})),
        rollout_pool=SimpleNamespace(generate=generate),
        view=lambda sample, info, trajectories, progress: GroupView(sample, (), (), info),
    )
    maker = GroupMaker(pipeline, Admission(Pacing(1)), Ledger(), Draw(4, 1.0, 8), PackingConfig(), 0, 1)
    info = FrameInfo("k", tuple(map(float, range(frames))), (56, 56), (56, 56), float(frames))
    lease: Any = SimpleNamespace(info=info, frames="frames")
    view = asyncio.run(maker._view(7, sample, None, lease, ()))  # type: ignore[arg-type]
    assert (view.contrast is not None) == bool(orders)
    return orders


@pytest.mark.parametrize(("sample", "frames"), [(IMAGE, 1), (VIDEO, 1)])
def test_images_and_single_frames_have_no_contrast(sample: Sample, frames: int) -> None:
    assert drawn(sample, frames) == []


def test_a_video_has_half_as_many_completions_on_its_frames_in_another_order() -> None:
    ((n, order),) = drawn(VIDEO, 8)
    assert n == 2
    assert sorted(order) == list(range(8))


def test_another_order_never_is_the_given_one_and_is_reproducible() -> None:
    assert {another_order(2, [0, group]) for group in range(20)} == {(1, 0)}
    assert {another_order(3, [0, group]) for group in range(200)} == {
        (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)
    }  # fmt: skip
    assert another_order(16, [3, 5]) == another_order(16, [3, 5]) != another_order(16, [3, 6])
