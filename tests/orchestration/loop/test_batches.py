"""Every token keeps its weight, advantage and behaviour log-prob, however the step is split over ranks and forwards."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evidence.types import FrameInfo, Group, Prompt, Sample, ScoredGroup, Trajectory
from learner.advantages import Advantages
from learner.packing.step import with_targets
from learner.settings import PACKING_MODES, PackingConfig
from orchestration.loop.admission import StaleBatch
from orchestration.loop.batches import check_versions, layout_step, over_budget, step_targets

SAMPLE = Sample("a", "shapes", "general", "Where?", "left", video_path="a.mp4")
PROMPT_TOKEN = 7


def scored_groups(lengths: list[list[int]], seed: int) -> list[ScoredGroup]:
    """Groups whose completions have these lengths. No token id occurs twice, so an id identifies its completion."""
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
        info = FrameInfo(f"key of {number}", (0.0,), (56, 56), (56, 56), 1.0)
        group = Group(number, SAMPLE, info, prompt, trajectories, 0)
        groups.append(ScoredGroup(group, rewards, {}, {}, {}, ()))
    return groups


def refs(groups: list[ScoredGroup]) -> list[str]:
    return [f"frames of {scored.group.id}" for scored in groups]


def centred_advantages(groups: list[ScoredGroup]) -> list[np.ndarray]:
    return Advantages("sum", divide_by_std=False).of_step(groups)


def group_of_token(groups: list[ScoredGroup]) -> dict[int, int]:
    """token id -> id of the group whose completion holds it."""
    return {int(i): s.group.id for s in groups for t in s.group.trajectories for i in t.token_ids}


def micro_batches(groups: list[ScoredGroup], advantages: list[np.ndarray], ranks: int, packing: PackingConfig) -> list:
    layouts = layout_step([scored.group for scored in groups], refs(groups), ranks, packing)
    return with_targets(layouts, step_targets(groups, advantages))


steps = st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=5), min_size=1, max_size=9)
packings = st.builds(PackingConfig, st.sampled_from(PACKING_MODES), st.sampled_from([20, 40, 10_000]))


@settings(max_examples=60, deadline=None)
@given(steps, st.integers(1, 4), packings, st.booleans(), st.integers(0, 9))
def test_every_token_keeps_its_weight_advantage_and_log_prob(
    lengths: list[list[int]], ranks: int, packing: PackingConfig, divide: bool, seed: int
) -> None:
    groups = scored_groups(lengths, seed)
    trained: dict[int, tuple[float, float, float]] = {}
    for micro in chain(*micro_batches(groups, Advantages("sum", divide).of_step(groups), ranks, packing)):
        values = zip(micro.batch.targets, micro.weights, micro.advantages, micro.behaviour, strict=True)
        for target, *rest in values:
            assert target not in trained, "a token is trained once"
            trained[int(target)] = tuple(map(float, rest))  # type: ignore[assignment]

    expected = {}
    completions = sum(map(len, lengths))
    for scored in groups:
        centred = scored.rewards - scored.rewards.mean()
        advantages = centred / (scored.rewards.std(ddof=1) + 1e-4) if divide else centred
        for trajectory, advantage in zip(scored.group.trajectories, advantages):
            n = len(trajectory.token_ids)
            for token, logprob in zip(trajectory.token_ids, trajectory.logprobs):
                expected[int(token)] = (1 / (completions * n), float(advantage), float(logprob))
    assert trained.keys() == expected.keys()
    for token, values in expected.items():
        assert trained[token] == pytest.approx(values, rel=1e-5, abs=1e-6)
    assert sum(weight for weight, _, _ in trained.values()) == pytest.approx(1, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(steps, st.integers(1, 4), packings)
def test_each_piece_has_the_frames_of_its_group(lengths: list[list[int]], ranks: int, packing: PackingConfig) -> None:
    groups = scored_groups(lengths, 0)
    group_of = group_of_token(groups)
    for micro in chain(*micro_batches(groups, centred_advantages(groups), ranks, packing)):
        batch = micro.batch
        pieces = list(dict.fromkeys((int(b), int(batch.segment[b, t])) for b, t in np.argwhere(batch.segment >= 0)))
        assert len(batch.image_of) == len(pieces)
        for source, target in zip(batch.predict_from, batch.targets):
            row = int(source) // batch.token_ids.shape[1]
            shown = batch.image_of[pieces.index((row, int(batch.segment.reshape(-1)[source])))]
            number = group_of[int(target)]
            assert micro.images[shown] == f"frames of {number}"
            assert micro.image_keys[shown] == f"key of {number}"
            # A token is predicted from the last token of the prompt or from the token before it.
            assert batch.token_ids.reshape(-1)[source] in (PROMPT_TOKEN, target - 1)


def test_a_group_is_over_budget_if_one_completion_does_not_fit_alone() -> None:
    (scored,) = scored_groups([[3, 9]], 0)  # a prompt of 3 tokens
    prompt, trajectories = scored.group.prompt, scored.group.trajectories
    assert not over_budget(prompt, trajectories, PackingConfig("prefix", 11))
    assert over_budget(prompt, trajectories, PackingConfig("prefix", 10))
    with pytest.raises(ValueError, match="above the budget of 10"):
        layout_step([scored.group], ["frames"], 1, PackingConfig("prefix", 10))


@pytest.mark.parametrize(("versions", "right"), [((3, 3), True), ((3, 5), True), ((2, 3), False), ((4, 6), False)])
def test_the_versions_that_drew_a_group_lie_between_its_oldest_and_the_step(
    versions: tuple[int, int], right: bool
) -> None:
    first, last = versions
    (scored,) = scored_groups([[4, 4]], 0)
    spans = ((first, 0, 2), (last, 2, 4))
    trajectories = tuple(replace(t, version_spans=spans) for t in scored.group.trajectories)
    group = replace(scored.group, trajectories=trajectories, oldest_version=3)
    if right:
        check_versions([group], 5)
    else:
        with pytest.raises(StaleBatch, match=f"group 0 .* 3 to 5, .* drawn by versions {first} to {last}"):
            check_versions([group], 5)
