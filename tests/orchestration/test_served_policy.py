"""One running policy for many questions: what a cancelled caller leaves behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import served

from evidence.types import Sample
from orchestration.supervision.standalone_policy import StandalonePolicy
from rollout.dataset.shapes import make_shapes

pytestmark = pytest.mark.slow
Served = tuple[StandalonePolicy, Callable[..., Any]]


@pytest.fixture(scope="module")
def policy(ray_cluster: Any) -> Iterator[Served]:
    with served("engine.max_num_seqs=4") as served_policy:
        yield served_policy


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes") / "data"
    make_shapes(folder, train=0, val=0, test=1, workers=1)
    return next(folder.rglob("*.mp4"))


def test_a_cancelled_task_frees_its_places_in_the_engine(policy: Served, video: Path) -> None:
    served_policy, run = policy
    sample = Sample("1", "test", "", "Where is the red circle at 3.0 s?", "", video_path=str(video))

    async def work() -> float:
        with await served_policy.lease(sample) as lease:
            prompt = served_policy.prompt(sample, lease)
            await served_policy.generate(prompt, lease.frames)  # compilation
            many = asyncio.create_task(served_policy.generate(prompt, lease.frames, n=2000, temperature=1.0))
            await asyncio.sleep(2)
            assert not many.done()
            many.cancel()
            began = time.monotonic()
            (greedy,) = await served_policy.generate(prompt, lease.frames)
            assert "<answer>" in greedy.text
            return time.monotonic() - began

    assert run(work()) < 5, "the engine went on with 2000 completions that nobody awaits"
