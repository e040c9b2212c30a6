"""Two ranks with different inputs: text on one and a video on the other, a cached clip and a new one."""

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
# A step takes about a second in these tests. The test also checks why a step does not end.
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
        )
        gangs.append(LearnerGang(config, 2))
        return gangs[-1]

    yield start
    for gang in gangs:
        gang.stop()


def mixed(encoder: Any) -> Parts:
    """Three forwards, in each of which the two ranks get different kinds of input."""
    kinds = [("text", "image"), ("image", "video"), ("video", "text")]
    pairs = [
        [micro_batch(encoder, kind, 10 * n + rank) for rank, kind in enumerate(two)] for n, two in enumerate(kinds)
    ]
    return [list(part) for part in zip(*pairs)]


def check_step(gang: LearnerGang, parts: Parts, config: PolicyConfig, model: Path, encoder: Any) -> dict[str, float]:
    """Compare the gang's log-probs and its first step with plain torch. Returns the step's metrics."""
    policy, patcher = plain_policy(model, encoder, config), Patcher.of_model(model)
    for ours, micros in zip(gang.logprobs(parts), parts):
        for logprobs, micro in zip(ours, micros):
            np.testing.assert_allclose(logprobs, plain_logprobs(policy, patcher, micro).detach(), atol=1e-5)
    metrics = gang.train_step(parts, LEARNING_RATE)
    assert metrics["grad_norm"] == pytest.approx(plain_gradients(policy, patcher, parts), rel=1e-3)
    theirs = policy.checkpoint_parameters(frozen=False)
    require_same_gradients(gradients_of(gang), {name: p.grad.numpy() for name, p in theirs.items()})
    return metrics


def watch_layers(gang: LearnerGang, folder: Path) -> Callable[[], list[list[str]]]:
    """Returns a function that lists the layers each rank's forwards have reached so far, in order: ZeRO-3 gathers each
    layer on all ranks together. They are written to files, which can be read while the ranks wait."""

    def watch(rank: Any) -> None:
        file = (folder / str(rank.rank)).open("w", buffering=1)
        for name, layer in rank.policy.named_modules():
            if next(layer.parameters(recurse=False), None) is not None:
                # Runs before DeepSpeed's own hook, in which the rank may block.
                layer.register_forward_pre_hook(lambda *_, name=name: print(name, file=file), prepend=True)

    ray.get([rank.__ray_call__.remote(watch) for rank in gang.ranks], timeout=180)
    return lambda: [(folder / str(n)).read_text().split() for n in range(len(gang.ranks))]


def test_a_frozen_tower_runs_once_per_clip_and_without_the_other_rank(
    start: Callable, either_model: Path, either_encoder: Any, ray_cluster: Any
) -> None:
    config = PolicyConfig()
    gang = start(config)
    parts = mixed(either_encoder)
    metrics = check_step(gang, parts, config, either_model, either_encoder)
    # Four of the six forwards have images; the step reuses the features cached by the log-probs before it.
    assert (metrics["vision_misses"], metrics["vision_hits"]) == (4, 4)

    # One version later, rank 0 gets a clip that it has cached and rank 1 gets a new one.
    metrics = gang.train_step([[parts[0][1]], [micro_batch(either_encoder, "image", 77)]], LEARNING_RATE)
    assert (metrics["vision_misses"], metrics["vision_hits"]) == (5, 5)

    whole = plain_policy(either_model, either_encoder, config).model.named_parameters()
    tower = {name: p.detach().numpy() for name, p in whole if "visual" in name}
    with_frozen = weights_of(ray_cluster, gang, frozen=True)
    assert not any("visual" in name for name in weights_of(ray_cluster, gang))
    assert {name for name in with_frozen if "visual" in name} == tower.keys()
    for name, array in tower.items():
        np.testing.assert_array_equal(with_frozen[name], array)


def test_every_rank_runs_a_trained_tower_and_a_step_without_that_never_ends(
    start: Callable, either_model: Path, either_encoder: Any, ray_cluster: Any, tmp_path: Path
) -> None:
    config = PolicyConfig(train_vision=True, vision_lr_factor=VISION_FACTOR, gradient_checkpointing=True)
    gang = start(config)
    before = weights_of(ray_cluster, gang)
    layers, parts = watch_layers(gang, tmp_path), mixed(either_encoder)
    metrics = check_step(gang, parts, config, either_model, either_encoder)
    assert "vision_hits" not in metrics
    rank_0, rank_1 = layers()
    assert rank_0 == rank_1, "the ranks gather in different orders"
    first_block = next(name for name in rank_0 if "visual" in name)
    assert rank_0.count(first_block) == 2 * len(parts[0]), "once in each forward, whatever its input"

    moved = {name: np.abs(array - before[name]).max() for name, array in weights_of(ray_cluster, gang).items()}
    for name, most in moved.items():
        # Adam's first step equals the learning rate wherever there is a gradient.
        rate = LEARNING_RATE * (VISION_FACTOR if "visual" in name else 1)
        assert most == pytest.approx(rate, rel=1e-2), name

    def leave_out_the_dummy(rank: Any) -> None:
        rank.policy.config.train_vision = False

    ray.get([rank.__ray_call__.remote(leave_out_the_dummy) for rank in gang.ranks])
    done = len(rank_0)
    calls = [rank.train_step.remote(part, LEARNING_RATE) for rank, part in zip(gang.ranks, parts)]
    # A rank waits in a gather forever, or dies because gloo detects that another rank entered a different gather.
    ended, _ = ray.wait(calls, num_returns=len(calls), timeout=HANGS_S)
    for call in ended:
        with pytest.raises(RayError):
            ray.get(call)
    with_text, with_images = (names[done:] for names in layers())
    differing = next(n for n, (a, b) in enumerate(zip(with_text, with_images)) if a != b)
    assert "visual" not in with_text[differing], "without images, the language model comes next"
    assert "visual" in with_images[differing], "with images, the tower comes next"
