"""Batches: every token carries its own weight, advantage and behaviour log-prob, however the step is dealt out."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evidence.types import FrameInfo, Group, Prompt, Sample, ScoredGroup, Trajectory
from learner.advantages import Advantages
from orchestration.batches import scoring_batches, train_batches

INFO = FrameInfo("key", (0.0,), (56, 56), (56, 56), 1.0)
SAMPLE = Sample("a", "shapes", "general", "Where?", "left", video_path="a.mp4")
PROMPT_TOKEN = 7


def scored_groups(lengths: list[list[int]], seed: int) -> list[ScoredGroup]:
    """Groups whose completions have these lengths; no token id occurs twice, so that an id says whose token it is."""
    rng = np.random.default_rng(seed)
    ids = iter(range(1000, 100_000))
    groups = []
    for number, completions in enumerate(lengths):
        size = 3 + number
        tokens = np.full(size, PROMPT_TOKEN, np.int32)
        positions = np.broadcast_to(np.arange(size, dtype=np.int32), (3, size))
        prompt = Prompt(tokens, tokens, positions, np.array([[1, 2, 2]], np.int32))
        trajectories = tuple(
            Trajectory(
                np.array([next(ids) for _ in range(n)], np.int32), -rng.random(n, np.float32), ((0, 0, n),), "", "stop"
            )
            for n in completions
        )
        rewards = rng.random(len(completions)).astype(np.float32)
        group = Group(number, SAMPLE, INFO, prompt, trajectories, 0)
        groups.append(ScoredGroup(group, rewards, {}, {}, {}, ()))
    return groups


def refs(groups: list[ScoredGroup]) -> list[str]:
    return [f"frames of {scored.group.id}" for scored in groups]


def centred(groups: list[ScoredGroup]) -> list[np.ndarray]:
    return Advantages("sum", divide_by_std=False).of_step(groups)


def owner(groups: list[ScoredGroup]) -> dict[int, int]:
    """token id -> the group whose completion it is in."""
    return {int(i): s.group.id for s in groups for t in s.group.trajectories for i in t.token_ids}


steps = st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=5), min_size=1, max_size=9)


@settings(max_examples=60, deadline=None)
@given(steps, st.integers(1, 4), st.sampled_from([1, 40, 10_000]), st.booleans(), st.integers(0, 9))
def test_every_token_keeps_what_is_its_own(
    lengths: list[list[int]], ranks: int, budget: int, divide: bool, seed: int
) -> None:
    ranks = min(ranks, len(lengths))
    groups = scored_groups(lengths, seed)
    dealt = train_batches(groups, Advantages("sum", divide).of_step(groups), refs(groups), ranks, budget)
    assert len(dealt) == ranks
    assert len({len(micros) for micros in dealt}) == 1, "ZeRO-3 gathers in every forward: ranks must have equally many"

    found: dict[int, tuple[float, float, float]] = {}
    for micro in chain(*dealt):
        values = zip(micro.batch.targets, micro.weights, micro.advantages, micro.behaviour, strict=True)
        for target, *rest in values:
            assert target not in found, "a token is trained once"
            found[int(target)] = tuple(map(float, rest))  # type: ignore[assignment]

    expected = {}
    completions = sum(map(len, lengths))
    for scored in groups:
        centred = scored.rewards - scored.rewards.mean()
        advantages = centred / (scored.rewards.std(ddof=1) + 1e-4) if divide else centred
        for trajectory, advantage in zip(scored.group.trajectories, advantages):
            n = len(trajectory.token_ids)
            for token, logprob in zip(trajectory.token_ids, trajectory.logprobs):
                expected[int(token)] = (1 / (completions * n), float(advantage), float(logprob))
    assert found.keys() == expected.keys()
    for token, values in expected.items():
        assert found[token] == pytest.approx(values, rel=1e-5, abs=1e-6)
    assert sum(weight for weight, _, _ in found.values()) == pytest.approx(1, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(steps, st.integers(1, 4), st.sampled_from([1, 40, 10_000]))
def test_each_row_has_the_frames_of_its_group(lengths: list[list[int]], ranks: int, budget: int) -> None:
    groups = scored_groups(lengths, 0)
    owners = owner(groups)
    dealt = train_batches(groups, centred(groups), refs(groups), min(ranks, len(groups)), budget)
    for micro in chain(*dealt):
        rows, length = micro.batch.token_ids.shape
        assert len(micro.images) == rows
        for source, target in zip(micro.batch.predict_from, micro.batch.targets):
            assert micro.images[source // length] == f"frames of {owners[int(target)]}"
            # What predicts a token is the last token of the prompt, or the token before it.
            assert micro.batch.token_ids.reshape(-1)[source] in (PROMPT_TOKEN, target - 1)


def test_scoring_deals_the_same_tokens_without_advantages() -> None:
    groups = scored_groups([[3, 4], [2, 2], [5, 1]], 0)
    trained = train_batches(groups, centred(groups), refs(groups), 2, 40)
    scoring = scoring_batches([scored.group for scored in groups], refs(groups), 2, 40)
    for one, other in zip(chain(*trained), chain(*scoring), strict=True):
        np.testing.assert_array_equal(one.batch.targets, other.batch.targets)
        np.testing.assert_array_equal(one.behaviour, other.behaviour)
        assert not other.advantages.any()
