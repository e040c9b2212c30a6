"""Samples of the embedded world, drawn without writing videos, and a fixture that asks a referee's service."""

from collections.abc import Callable, Coroutine

import numpy as np
import pytest

from evidence.types import Claim, FrameInfo, KeyFrame, Sample, Verdict
from referee.service.service import RefereeService
from rollout.dataset.shapes import COLOURS, DURATION, FRAME_SIDE, MOMENTS, SHAPES, SIDE, draw_shapes, questions


@pytest.fixture(scope="session")
def info() -> FrameInfo:
    return FrameInfo("toy", tuple(map(float, range(MOMENTS))), (FRAME_SIDE, FRAME_SIDE), (SIDE, SIDE), DURATION)


@pytest.fixture(scope="session")
def phrases() -> list[str]:
    return [f"{colour} {form}" for colour in COLOURS for form in SHAPES]


@pytest.fixture(scope="session")
def samples() -> list[Sample]:
    samples = []
    for number in range(200):
        rng = np.random.default_rng([7, number])
        for raw in questions(str(number), "clip.mp4", draw_shapes(rng), 1, rng):
            samples.append(
                Sample(
                    id=raw["id"],
                    source=raw["source"],
                    task=raw["task"],
                    question=raw["question"],
                    answer=raw["answer"],
                    video_path=raw["video_path"],
                    key_frames=tuple(KeyFrame(str(k["idx"]), k["time"]) for k in raw["key_frames"]),
                    key_items={
                        idx: {phrase: tuple(map(tuple, boxes)) for phrase, boxes in items.items()}
                        for idx, items in raw["key_items"].items()
                    },
                )
            )
    return samples


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (8, FRAME_SIDE, FRAME_SIDE, 3), np.uint8)


@pytest.fixture
def verify(info: FrameInfo, frames: np.ndarray) -> Callable[..., Coroutine]:
    async def run(
        service: RefereeService, *claims: Claim, question: str = "Where?", info: FrameInfo = info
    ) -> list[Verdict | None]:
        verdicts = await service.verify(question, list(claims), info, frames)
        counts = service.counts
        outcomes = ("cached", "deduplicated", "asked", "breaker_open")
        assert counts["questions"] == sum(counts[name] for name in outcomes), "each question has one outcome"
        return verdicts

    return run
