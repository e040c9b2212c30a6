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
from test_ranks import gradients_of, require_same_gradients, weights_of

from learner.algorithm import AlgorithmConfig
from learner.model.patches import Patcher
from learner.packing.step import MicroBatch
from learner.settings import LossConfig, PolicyConfig, RankConfig, ZeroConfig
from orchestration.supervision.learner_gang import LearnerGang

pytestmark = pytest.mark.slow
LEARNING_RATE = 1e-2
VISION_FACTOR = 0.1
# A step here takes a second. Why one does not end is looked at besides.
HANGS_S = 20.0

Parts = list[list[MicroBatch]]


@pytest.fixture(scope="module")
def start(ray_cluster: Any, either_model: Path, either_encoder: Any) -> Iterator[Callable[[PolicyConfig], LearnerGang]]:
    gangs: list[LearnerGang] = []

    def start(policy: PolicyConfig) -> LearnerGang:
        config = RankConfig(
            model=str(either_model),
            banned_ids=either_encoder.banned_ids,
            policy=policy,
            loss=LossConfig(AlgorithmConfig()),
            zero=ZeroConfig(grad_norm=1e9),
            timeout_s=300,
        )
        gangs.append(LearnerGang(config, 2))
        return gangs[-1]

    yield start
    for gang in gangs:
        gang.stop()


def mixed(encoder: Any) -> Parts:
    """In each of three forwards, one rank is shown what the other is not."""
    kinds = [("text", "image"), ("image", "video"), ("video", "text")]
    pairs = [
        [micro_batch(encoder, kind, 10 * n + rank) for rank, kind in enumerate(two)] for n, two in enumerate(kinds)
    ]
    return [list(part) for part in zip(*pairs)]


def check_step(gang: LearnerGang, parts: Parts, config: PolicyConfig, model: Path, encoder: Any) -> dict[str, float]:
    """Log-probs and the first step of the gang against plain torch."""
    policy, patcher = plain_policy(model, encoder, config), Patcher.of_model(model)
    for ours, micros in zip(gang.logprobs(parts), parts):
        for found, micro in zip(ours, micros):
            np.testing.assert_allclose(found, plain_logprobs(policy, patcher, micro).detach(), atol=1e-5)
    metrics = gang.train_step(parts, LEARNING_RATE)
    assert metrics["grad_norm"] == pytest.approx(plain_gradients(policy, patcher, parts), rel=1e-3)
    theirs = policy.checkpoint_parameters(frozen=False)
    require_same_gradients(gradients_of(gang), {name: p.grad.numpy() for name, p in theirs.items()})
    return metrics


def watch_layers(gang: LearnerGang, folder: Path) -> Callable[[], list[list[str]]]:
    """The layers that each rank's forwards have come to so far, in order: ZeRO-3 gathers each on all ranks together.
    In files, which can be read while the ranks wait."""

    def watch(rank: Any) -> None:
        file = (folder / str(rank.rank)).open("w", buffering=1)
        for name, layer in rank.policy.named_modules():
            if next(layer.parameters(recurse=False), None) is not None:
                # Before DeepSpeed's own hook, in which it would wait.
                layer.register_forward_pre_hook(lambda *_, name=name: print(name, file=file), prepend=True)

    ray.get([rank.__ray_call__.remote(watch) for rank in gang.ranks], timeout=gang.timeout_s)
    return lambda: [(folder / str(n)).read_text().split() for n in range(len(gang.ranks))]


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
    start: Callable, either_model: Path, either_encoder: Any, ray_cluster: Any, tmp_path: Path
) -> None:
    config = PolicyConfig(train_vision=True, vision_lr_factor=VISION_FACTOR, gradient_checkpointing=True)
    gang = start(config)
    before = weights_of(ray_cluster, gang)
    layers, parts = watch_layers(gang, tmp_path), mixed(either_encoder)
    metrics = check_step(gang, parts, config, either_model, either_encoder)
    assert "vision_hits" not in metrics
    one, other = layers()
    assert one == other, "the ranks' gathers do not meet"
    first_block = next(name for name in one if "visual" in name)
    assert one.count(first_block) == 2 * len(parts[0]), "once in each forward, whatever it shows"

    moved = {name: np.abs(array - before[name]).max() for name, array in weights_of(ray_cluster, gang).items()}
    for name, most in moved.items():
        # Adam's first step is the learning rate, wherever there is a gradient.
        rate = LEARNING_RATE * (VISION_FACTOR if "visual" in name else 1)
        assert most == pytest.approx(rate, rel=1e-2), name

    def leave_out_the_dummy(rank: Any) -> None:
        rank.policy.config.train_vision = False

    ray.get([rank.__ray_call__.remote(leave_out_the_dummy) for rank in gang.ranks])
    done = len(one)
    calls = [rank.train_step.remote(part, LEARNING_RATE) for rank, part in zip(gang.ranks, parts)]
    # A rank waits in a gather for ever, or dies since gloo finds that it has met another one.
    ended, _ = ray.wait(calls, num_returns=len(calls), timeout=HANGS_S)
    for call in ended:
        with pytest.raises(RayError):
            ray.get(call)
    shown_text, shown_images = (each[done:] for each in layers())
    parting = next(n for n, (one, other) in enumerate(zip(shown_text, shown_images)) if one != other)
    assert "visual" not in shown_text[parting], "where nothing is shown, the language model comes next"
    assert "visual" in shown_images[parting], "elsewhere the tower does"
