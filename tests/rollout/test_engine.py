"""The engine compared with transformers: same prompt, same distribution, independent of the rest of the batch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference import Reference

from evidence.types import Trajectory
from rollout.engine import Engine, PromptMismatch

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def reference(tiny_model: Path, encoder: Any) -> Reference:
    return Reference(tiny_model, encoder.banned_ids)


def same(a: Trajectory, b: Trajectory) -> bool:
    """Equal up to rounding: on some CPUs the result of a matrix product depends on the number of rows."""
    return np.array_equal(a.token_ids, b.token_ids) and np.abs(a.logprobs - b.logprobs).max() < TOLERANCE


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_logprobs_match_transformers(
    engine: Engine, run: Callable, reference: Reference, video_prompt: tuple, temperature: float
) -> None:
    prompt, frames = video_prompt
    for trajectory in run(engine.generate(prompt, frames, 4 if temperature else 1, temperature, 48, seed=1)):
        expected = reference.logprobs(prompt, frames, trajectory.token_ids, temperature or 1.0)
        assert np.abs(trajectory.logprobs - expected).max() < TOLERANCE
        assert not set(trajectory.token_ids.tolist()) & set(reference.banned_ids)
        if temperature == 0:
            logits = reference.logits(prompt, frames, trajectory.token_ids)[:-1].numpy()
            logits[:, reference.banned_ids] = -np.inf
            drawn = np.take_along_axis(logits, trajectory.token_ids[:, None].astype(np.int64), axis=1)
            assert (drawn > logits.max(1, keepdims=True) - TOLERANCE).all()


def test_completions_depend_only_on_their_seed(engine: Engine, run: Callable, video_prompt: tuple) -> None:
    prompt, frames = video_prompt

    async def crowd() -> list[tuple[Trajectory, ...]]:
        others = [engine.generate(prompt, frames[::-1], 3, 1.0, 40, seed=i) for i in range(4)]
        return await asyncio.gather(*others, engine.generate(prompt, frames, 4, 1.0, 64, seed=5))

    alone = run(engine.generate(prompt, frames, 4, 1.0, 64, seed=5))
    crowded = run(crowd())[-1]
    assert all(same(a, b) for a, b in zip(alone, crowded, strict=True))
    assert len({trajectory.token_ids.tobytes() for trajectory in alone}) == 4
    assert not same(alone[0], run(engine.generate(prompt, frames, 1, 1.0, 64, seed=6))[0])


def test_a_trajectory_is_complete(engine: Engine, run: Callable, encoder: Any, video_prompt: tuple) -> None:
    prompt, frames = video_prompt
    trajectories = run(engine.generate(prompt, frames, 16, 1.0, 300, seed=2))
    assert {trajectory.finish_reason for trajectory in trajectories} == {"stop", "length"}
    for trajectory in trajectories:
        stopped = trajectory.finish_reason == "stop"
        assert trajectory.token_ids.dtype == np.int32
        assert trajectory.logprobs.dtype == np.float32
        assert trajectory.version_spans == ((engine.version, 0, len(trajectory.token_ids)),)
        assert (int(trajectory.token_ids[-1]) in encoder.stop_ids) == stopped
        assert trajectory.text == encoder.tokenizer.decode(trajectory.token_ids, skip_special_tokens=True)


def test_choose_is_the_softmax_over_the_allowed_ids(
    engine: Engine, run: Callable, reference: Reference, encoder: Any
) -> None:
    images = list(np.random.default_rng(3).integers(0, 256, (2, 56, 56, 3), np.uint8))
    prompt = encoder.encode(["Claim: ", (56, 56), "a red circle ", (56, 56), " Score: "])
    allowed = encoder.tokenizer.convert_tokens_to_ids(["2", "0", "1"])
    probabilities = run(engine.choose(prompt, images, allowed))
    expected = reference.logits(prompt, images, np.empty(0, np.int32))[-1][allowed].softmax(0).numpy()
    assert np.abs(probabilities - expected).max() < TOLERANCE
    assert abs(probabilities.sum() - 1) < TOLERANCE


def test_a_prompt_that_differs_in_the_engine_is_refused(engine: Engine, run: Callable, encoder: Any) -> None:
    prompt = encoder.encode(["Look: ", (56, 56), " what is it?"])
    first_image_token = int(np.flatnonzero(prompt.token_ids == encoder.image_token)[0])
    larger = np.zeros((1, 84, 56, 3), np.uint8)
    ours = len(prompt.token_ids)
    names = f"{encoder.image_token} \\('<\\|image_pad\\|>'\\) in the engine, \\d+ \\('<\\|vision_end\\|>'\\) here"
    complaint = f"{ours + 2} tokens, ours {ours}; .* position {first_image_token + 4}: {names}"
    with pytest.raises(PromptMismatch, match=complaint):
        run(engine.generate(prompt, larger, 1, 1.0, 4, seed=0))
