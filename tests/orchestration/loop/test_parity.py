"""The parity gate names the first token on which engine and learner disagree."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

from evidence.errors import BadInput, RunFailed, UnreadableMedia
from evidence.types import FrameInfo, Group, Prompt, Sample, Trajectory
from learner.settings import PackingConfig, ZeroConfig
from orchestration.loop.parity import Parity, ParityError, check_parity, compared
from orchestration.loop.pipeline import Draw
from orchestration.parity_bounds import ParityBounds, ParityConfig
from rollout.engine import PromptMismatch

SAMPLE = Sample("clip-7", "shapes", "general", "Where?", "left", video_path="a.mp4")
INFO = FrameInfo("key", (0.0,), (56, 56), (56, 56), 1.0)
BOUNDS = ParityBounds(mean=1e-4, p999=1e-3)


def group_of(*lengths: int) -> Group:
    """A group whose completions have these lengths; token t of completion k has id 100 k + t and log-prob -k."""
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


def test_the_distribution_of_the_differences_is_returned() -> None:
    groups = [group_of(600, 400), group_of(1000)]
    ours = [learner_logprobs(group) for group in groups]
    ours[1][:2] += 1.5e-3, 1e-2
    ours[0][5] += 5e-4
    parity = compared(groups, ours, BOUNDS, decode)
    assert (parity.tokens, parity.largest) == (2000, pytest.approx(1e-2, rel=1e-3))
    assert parity.mean == pytest.approx((1.5e-3 + 1e-2 + 5e-4) / 2000, rel=1e-3)
    # Of 2,000 in order the 99.9th percentile is at 1,997.001: between the third largest and the second.
    assert parity.p999 == pytest.approx(5e-4 + 0.001 * 1e-3, rel=1e-3)


def test_many_small_differences_are_beyond_the_bound_of_the_mean_alone() -> None:
    group = group_of(1000)
    with pytest.raises(
        ParityError, match=r"mean 0\.0002, 99\.9th percentile 0\.0002, largest 0\.0002, over 1000 tokens"
    ):
        compared([group], [learner_logprobs(group) + 2e-4], BOUNDS, decode)
    assert compared([group], [learner_logprobs(group) + 5e-5], BOUNDS, decode).tokens == 1000


@pytest.mark.parametrize("wrong", [-1.5, np.nan])
def test_the_earliest_token_beyond_the_bound_is_named(wrong: float) -> None:
    groups = [group_of(5), group_of(3, 5, 4)]
    ours = [learner_logprobs(group) for group in groups]
    ours[1][2] = -9.0  # token 2 of completion 0
    ours[1][3 + 1] = wrong  # token 1 of completion 1, which is earlier
    with pytest.raises(ParityError, match=r"token 1 of completion 1 to sample clip-7: id 101 \('word101'\) has -1"):
        compared(groups, ours, BOUNDS, decode)


class Fakes:
    """State shared by the fakes of one gate. `lost_on_the_way_to`: "engine" or "ranks", which the frames of clip-2
    never reach. `recognised`: whether the store recognises the lost frames as its own."""

    def __init__(self, lost_on_the_way_to: str, recognised: bool):
        self.lost_on_the_way_to, self.recognised = lost_on_the_way_to, recognised
        self.leased: set[str] = set()
        self.lost: set[str] = set()

    def deliver(self, receiver: str, frames: str) -> None:
        if receiver == self.lost_on_the_way_to and frames == "frames of clip-2":
            raise ObjectLostError("clip-2", b"", "")


class FakeLease(contextlib.AbstractContextManager):
    def __init__(self, fakes: Fakes, clip: str):
        self.fakes, self.clip = fakes, clip
        self.frames, self.info = f"frames of {clip}", replace(INFO, key=clip)
        fakes.leased.add(clip)

    async def renew(self) -> None:
        if self.clip in self.fakes.lost:
            self.fakes.lost.remove(self.clip)
            self.frames = f"new frames of {self.clip}"

    def __exit__(self, *_: Any) -> None:
        self.fakes.leased.remove(self.clip)


class FakePipeline:
    """Also its own pool and store. clip-0 is unreadable; every token has log-prob -1."""

    encoder = SimpleNamespace(tokenizer=SimpleNamespace(decode=decode))

    def __init__(self, fakes: Fakes, errors: Iterable[Exception]):
        self.fakes, self.errors = fakes, iter(errors)
        self.rollout_pool = self.store = self

    def lost(self, error: ObjectLostError) -> bool:
        self.fakes.lost.add(error.object_ref_hex)
        return self.fakes.recognised

    async def prepare(self, sample: Sample) -> tuple[FakeLease, Prompt]:
        if sample.id == "clip-0":
            raise UnreadableMedia("clip-0.mp4", "cut off")
        return FakeLease(self.fakes, sample.id), replace(group_of(1).prompt, grids=np.ones((1, 3), np.int32))

    async def generate(self, may_start: Any, prompt: Prompt, frames: str, n: int, *_: Any) -> tuple[tuple, int]:
        if error := next(self.errors, None):
            raise error
        self.fakes.deliver("engine", frames)
        ids, logprobs = np.array([3, 4], np.int32), np.full(2, -1.0, np.float32)
        return (Trajectory(ids, logprobs, ((0, 0, 2),), "", "stop"),) * n, 0


class FakeGang:
    """Ranks, the last of which is off by `shift` in log-prob."""

    def __init__(self, fakes: Fakes, ranks: int, shift: float):
        self.fakes, self.ranks, self.shift = fakes, ranks, shift
        self.frames: list[list[str]] = []

    def fetch(self, parts: list) -> None:
        self.frames = self.images_of(parts)
        for frames in chain(*self.frames):
            self.fakes.deliver("ranks", frames)

    def logprobs(self, parts: list) -> list[list[np.ndarray]]:
        assert len(parts) == self.ranks
        assert self.frames == self.images_of(parts)
        # Two tokens per completion, two completions per group: the last four tokens are those of the last group.
        first_shifted = 4 * (self.ranks - 1)
        return [[-1 + self.shift * (micro.batch.token >= first_shifted) for micro in part] for part in parts]

    def drop_frames(self) -> None:
        self.frames = []

    @staticmethod
    def images_of(parts: list) -> list[list[str]]:
        return [[image for micro in part for image in micro.images] for part in parts]


async def gate(
    ranks: int,
    shift: float,
    errors: Iterable[Exception] = (),
    budget: int = 64,
    lost_on_the_way_to: str = "",
    recognised: bool = True,
    precision: str = "float32",
) -> Parity:
    """What the gate finds with these fakes (see their docstrings). `errors`: of the first generations."""
    fakes = Fakes(lost_on_the_way_to, recognised)
    pipeline, gang = FakePipeline(fakes, errors), FakeGang(fakes, ranks, shift)
    learner = SimpleNamespace(
        ranks=ranks, packing=PackingConfig("prefix", budget), parity=ParityConfig(), zero=ZeroConfig(precision)
    )
    samples = [Sample(f"clip-{n}", "s", "t", "q", "a", video_path="v") for n in range(5)]
    try:
        parity = await check_parity(pipeline, gang, samples, Draw(2, 1.0, 8), SimpleNamespace(learner=learner))
        assert not gang.frames, "the ranks drop the frames before their leases are released"
        return parity
    finally:
        assert not fakes.leased, "frames are released whether or not the gate passes"


def test_the_gate_compares_one_group_per_rank() -> None:
    """Each rank's log-probs are compared with the group it scored; unreadable videos are skipped."""
    assert asyncio.run(gate(ranks=2, shift=5e-5)).largest == pytest.approx(5e-5, rel=1e-2)
    with pytest.raises(ParityError, match="token 0 of completion 0 to sample clip-2"):
        asyncio.run(gate(ranks=2, shift=0.5))


def test_the_bounds_are_those_of_the_precision() -> None:
    assert asyncio.run(gate(ranks=1, shift=0.03, precision="bfloat16")).mean == pytest.approx(0.03, rel=1e-2)
    with pytest.raises(ParityError) as error:
        asyncio.run(gate(ranks=1, shift=0.03, precision="float32"))
    assert "learner.parity allows a mean of 0.0001 and a 99.9th percentile of 0.001" in str(error.value)
    assert "\n" not in str(error.value)
    assert ParityConfig(p999=2.0).bounds("bfloat16") == (0.05, 2.0)


def test_a_differing_prompt_is_reported_in_one_line() -> None:
    mismatch = PromptMismatch("they first differ at position 3: 5 ('a') in the engine, 6 ('b') here")
    raised = RayTaskError("generate", "a long traceback", mismatch).as_instanceof_cause()
    with pytest.raises(ParityError, match=r"^sample clip-1: they first differ at position 3: 5 \('a'\)"):
        asyncio.run(gate(ranks=1, shift=0.0, errors=[raised]))


def test_samples_above_the_token_budget_are_skipped() -> None:
    with pytest.raises(BadInput, match=r"fits learner\.packing\.token_budget = 4$"):
        asyncio.run(gate(ranks=1, shift=0.0, budget=4))  # too few for 4 prompt tokens and 1 of the 2 completion tokens


@pytest.mark.parametrize("receiver", ["engine", "ranks"])
def test_lost_frames_are_decoded_again(receiver: str) -> None:
    parity = asyncio.run(gate(ranks=2, shift=5e-5, lost_on_the_way_to=receiver))
    assert parity.largest == pytest.approx(5e-5, rel=1e-2)
    with pytest.raises(ObjectLostError):  # the lost object is not the store's: a retry would loop forever
        asyncio.run(gate(ranks=2, shift=0.0, lost_on_the_way_to=receiver, recognised=False))


def test_engines_that_die_or_hang_meanwhile_do_not_end_the_run_at_once() -> None:
    failures = [RayActorError(), TimeoutError("rollout engine 0 did not answer")]
    assert asyncio.run(gate(ranks=2, shift=5e-5, errors=failures)).largest == pytest.approx(5e-5, rel=1e-2)
    with pytest.raises(RunFailed, match=r"^sample clip-1: not completed in 3 attempts \(RayActorError: "):
        asyncio.run(gate(ranks=2, shift=5e-5, errors=[*failures, RayActorError()]))
