"""The parity gate names where engine and learner part."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from itertools import chain
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ObjectLostError, RayTaskError

from evidence.errors import BadInput, UnreadableMedia
from evidence.types import FrameInfo, Group, Prompt, Sample, Trajectory
from learner.settings import PackingConfig, ZeroConfig
from orchestration.loop.parity import ParityError, check_parity, worst_difference
from orchestration.loop.pipeline import Draw
from rollout.engine import PromptMismatch

SAMPLE = Sample("clip-7", "shapes", "general", "Where?", "left", video_path="a.mp4")
INFO = FrameInfo("key", (0.0,), (56, 56), (56, 56), 1.0)
BOUND = 1e-3


def group_of(*lengths: int) -> Group:
    """Completions of these lengths; token t of completion k has id 100 k + t and log-prob -k."""
    ids = np.zeros(4, np.int32)
    prompt = Prompt(ids, ids, np.zeros((3, 4), np.int32), np.zeros((0, 3), np.int32))
    trajectories = tuple(
        Trajectory(100 * k + np.arange(n, dtype=np.int32), np.full(n, -float(k), np.float32), ((0, 0, n),), "", "stop")
        for k, n in enumerate(lengths)
    )
    return Group(0, SAMPLE, INFO, prompt, trajectories, 0)


def learner_logprobs(group: Group) -> np.ndarray:
    return np.concatenate([t.logprobs for t in group.trajectories])


def decode(ids: list[int]) -> str:
    return f"word{ids[0]}"


def test_the_largest_difference_within_the_bound_is_returned() -> None:
    groups = [group_of(2, 3), group_of(4)]
    ours = [learner_logprobs(group) for group in groups]
    ours[1][2] += 5e-4
    assert worst_difference(groups, ours, BOUND, decode) == pytest.approx(5e-4, rel=1e-3)


@pytest.mark.parametrize("wrong", [-1.5, np.nan])
def test_the_earliest_token_beyond_the_bound_is_named(wrong: float) -> None:
    groups = [group_of(5), group_of(3, 5, 4)]
    ours = [learner_logprobs(group) for group in groups]
    ours[1][2] = -9.0  # token 2 of completion 0
    ours[1][3 + 1] = wrong  # token 1 of completion 1, which is earlier
    with pytest.raises(ParityError, match=r"token 1 of completion 1 to sample clip-7: id 101 \('word101'\) has -1"):
        worst_difference(groups, ours, BOUND, decode)


def test_the_gate_compares_one_group_of_each_rank() -> None:
    """Each rank's log-probs are held against the group that it was handed; unreadable videos are passed over."""
    assert asyncio.run(gate(ranks=2, shift=5e-4)) == pytest.approx(5e-4, rel=1e-2)
    with pytest.raises(ParityError, match="token 0 of completion 0 to sample clip-2"):
        asyncio.run(gate(ranks=2, shift=0.5))


def test_where_precision_alone_may_be_why_the_mend_is_named() -> None:
    for precision, told in (("float32", False), ("bfloat16", True)):
        with pytest.raises(ParityError) as error:
            asyncio.run(gate(ranks=1, shift=0.3, precision=precision))
        assert ("raise learner.parity_bound" in str(error.value)) == told
        assert "\n" not in str(error.value)


def test_a_differing_prompt_is_reported_in_one_line() -> None:
    mismatch = PromptMismatch("they first differ at position 3: 5 ('a') in the engine, 6 ('b') here")
    raised = RayTaskError("generate", "a long traceback", mismatch).as_instanceof_cause()
    with pytest.raises(ParityError, match=r"^sample clip-1: they first differ at position 3: 5 \('a'\)"):
        asyncio.run(gate(ranks=1, shift=0.0, raises=raised))


def test_what_does_not_fit_the_budget_is_passed_over() -> None:
    with pytest.raises(BadInput, match=r"fits learner\.packing\.token_budget = 4$"):
        asyncio.run(gate(ranks=1, shift=0.0, budget=4))  # a prompt of four tokens, and one of the completion's two


@pytest.mark.parametrize("where", ["engine", "ranks"])
def test_frames_that_are_lost_are_had_again(where: str) -> None:
    assert asyncio.run(gate(ranks=2, shift=5e-4, loses=where)) == pytest.approx(5e-4, rel=1e-2)
    with pytest.raises(ObjectLostError):  # of something else: to try again would be for ever
        asyncio.run(gate(ranks=2, shift=0.0, loses=where, known=False))


async def gate(
    ranks: int,
    shift: float,
    raises: Exception | None = None,
    budget: int = 64,
    loses: str = "",
    known: bool = True,
    precision: str = "float32",
) -> float:
    """The gate over a fleet whose completions have log-prob -1, and ranks of which the last is off by `shift`. The
    frames of clip-2 are lost on their way to what `loses` says; `known`: the store says that they were its own."""

    held: set[str] = set()

    class Lease(contextlib.AbstractContextManager):
        def __init__(self, clip: str):
            self.clip, self.frames, self.info = clip, f"frames of {clip}", replace(INFO, key=clip)

        async def renew(self) -> None:
            if self.clip in pipeline.lost:
                pipeline.lost.remove(self.clip)
                self.frames = f"new frames of {self.clip}"

        def __exit__(self, *_: Any) -> None:
            held.remove(self.clip)

    def see(where: str, frames: str) -> None:
        if where == loses and frames == "frames of clip-2":
            raise ObjectLostError("clip-2", b"", "")

    class Pipeline:
        encoder = SimpleNamespace(tokenizer=SimpleNamespace(decode=decode))

        def __init__(self) -> None:
            self.rollout_pool, self.lost = self, set()
            self.store = SimpleNamespace(lost=lambda error: known and not self.lost.add(error.object_ref_hex))

        async def prepare(self, sample: Sample) -> tuple[Any, Prompt]:
            if sample.id == "clip-0":
                raise UnreadableMedia("clip-0.mp4", "cut off")
            held.add(sample.id)
            return Lease(sample.id), replace(group_of(1).prompt, grids=np.ones((1, 3), np.int32))

        async def generate(self, may_start: Any, prompt: Prompt, frames: str, n: int, *_: Any) -> tuple[tuple, int]:
            if raises:
                raise raises
            see("engine", frames)
            one = Trajectory(np.array([3, 4], np.int32), np.full(2, -1.0, np.float32), ((0, 0, 2),), "", "stop")
            return (one,) * n, 0

    class Ranks:
        def __init__(self) -> None:
            self.has: list[list[str]] = []

        def fetch(self, parts: list) -> None:
            self.has = [[image for micro in part for image in micro.images] for part in parts]
            for frames in chain(*self.has):
                see("ranks", frames)

        def logprobs(self, parts: list) -> list[list[np.ndarray]]:
            assert len(parts) == ranks
            assert self.has == [[image for micro in part for image in micro.images] for part in parts]
            # Two tokens a completion, two completions a group: the last four tokens are the last group's.
            return [[-1 + shift * (micro.batch.token >= 4 * (ranks - 1)) for micro in part] for part in parts]

        def let_go(self) -> None:
            self.has = []

    pipeline, gang = Pipeline(), Ranks()
    packing = PackingConfig("prefix", budget)
    zero = ZeroConfig(precision)
    learner = SimpleNamespace(ranks=ranks, packing=packing, parity_bound=BOUND, zero=zero)
    samples = [Sample(f"clip-{n}", "s", "t", "q", "a", video_path="v") for n in range(5)]
    try:
        found = await check_parity(pipeline, gang, samples, Draw(2, 1.0, 8), SimpleNamespace(learner=learner))
        assert not gang.has, "no rank keeps what is released"
        return found
    finally:
        assert not held, "frames are released whatever the gate finds"
