"""Two ranks that are shown different things: text here and a video there, a clip known here and new there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.exceptions import RayError
from shown import micro_batch, plain_gradients, plain_logprobs, plain_policy
from test_ranks import weights_of

from learner.algorithm import AlgorithmConfig
from learner.micro import MicroBatch
from learner.patches import Patcher
from learner.settings import LossConfig, PolicyConfig, RankConfig, ZeroConfig
from orchestration.gang import Gang

pytestmark = pytest.mark.slow
LEARNING_RATE = 1e-2
VISION_FACTOR = 0.1
# A step here takes a second; a busy machine may take many.
HANGS_S = 60.0

Parts = list[list[MicroBatch]]


@pytest.fixture(scope="module")
def start(ray_cluster: Any, either_model: Path, either_encoder: Any) -> Iterator[Callable[[PolicyConfig], Gang]]:
    gangs: list[Gang] = []

    def start(policy: PolicyConfig) -> Gang:
        config = RankConfig(
            model=str(either_model),
            banned_ids=either_encoder.banned_ids,
            policy=policy,
            loss=LossConfig(AlgorithmConfig()),
            zero=ZeroConfig(grad_norm=1e9),
            timeout_s=300,
        )
        gangs.append(Gang(config, 2))
        return gangs[-1]

    yield start
    for gang in gangs:
        for rank in gang.ranks:
            ray_cluster.kill(rank)


def mixed(encoder: Any) -> Parts:
    """In each of three forwards, one rank is shown what the other is not."""
    kinds = [("text", "image"), ("image", "video"), ("video", "text")]
    pairs = [
        [micro_batch(encoder, kind, 10 * n + rank) for rank, kind in enumerate(two)] for n, two in enumerate(kinds)
    ]
    return [list(part) for part in zip(*pairs)]


def check_step(gang: Gang, parts: Parts, config: PolicyConfig, model: Path, encoder: Any) -> dict[str, float]:
    """Log-probs and a step of the gang against plain torch."""
    policy, patcher = plain_policy(model, encoder, config), Patcher.of_model(model)
    for ours, micros in zip(gang.logprobs(parts), parts):
        for found, micro in zip(ours, micros):
            np.testing.assert_allclose(found, plain_logprobs(policy, patcher, micro).detach(), atol=1e-5)
    metrics = gang.train_step(parts, LEARNING_RATE)
    assert metrics["grad_norm"] == pytest.approx(plain_gradients(policy, patcher, parts), rel=1e-3)
    return metrics


def test_a_frozen_tower_is_asked_once_per_clip_and_alone(
    start: Callable, either_model: Path, either_encoder: Any, ray_cluster: Any
) -> None:
    config = PolicyConfig()
    gang = start(config)
    parts = mixed(either_encoder)
    metrics = check_step(gang, parts, config, either_model, either_encoder)
    # Four of the six forwards show something; the step found what the log-probs before it had left.
    assert (metrics["vision_misses"], metrics["vision_hits"]) == (4, 4)

    # A version later: what rank 0 is shown it knows, what rank 1 is shown it does not.
    metrics = gang.train_step([[parts[0][1]], [micro_batch(either_encoder, "image", 77)]], LEARNING_RATE)
    assert (metrics["vision_misses"], metrics["vision_hits"]) == (5, 5)

    whole = plain_policy(either_model, either_encoder, config).model.named_parameters()
    tower = {name: p.detach().numpy() for name, p in whole if "visual" in name}
    handed = weights_of(ray_cluster, gang, frozen=True)
    assert not any("visual" in name for name in weights_of(ray_cluster, gang))
    assert {name for name in handed if "visual" in name} == tower.keys()
    for name, array in tower.items():
        np.testing.assert_array_equal(handed[name], array)


def test_a_trained_tower_is_run_by_every_rank_and_without_that_no_step_ends(
    start: Callable, either_model: Path, either_encoder: Any, ray_cluster: Any
) -> None:
    config = PolicyConfig(train_vision=True, vision_lr_factor=VISION_FACTOR, gradient_checkpointing=True)
    gang = start(config)
    before = weights_of(ray_cluster, gang)
    gang.timeout_s = HANGS_S
    parts = mixed(either_encoder)
    metrics = check_step(gang, parts, config, either_model, either_encoder)
    assert "vision_hits" not in metrics

    moved = {name: np.abs(array - before[name]).max() for name, array in weights_of(ray_cluster, gang).items()}
    for name, most in moved.items():
        # Adam's first step is the learning rate, wherever there is a gradient.
        rate = LEARNING_RATE * (VISION_FACTOR if "visual" in name else 1)
        assert most == pytest.approx(rate, rel=1e-2), name

    def leave_out_the_dummy(rank: Any) -> None:
        rank.policy.config.train_vision = False

    ray.get([rank.__ray_call__.remote(leave_out_the_dummy) for rank in gang.ranks])
    # A rank waits in a gather for ever, or dies since gloo finds that it has met another one.
    with pytest.raises(RayError):
        gang.train_step(parts, LEARNING_RATE)
