"""Both families: engine and learner agree on images and native videos, and the engine loads the learner's weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from transformers import AutoModelForImageTextToText

from evidence.manifest import Bucket, Packed
from evidence.types import Prompt, Trajectory
from learner.model.lora import adapter_scales, adapters_off, as_constants
from learner.model.patches import Patcher
from learner.model.policy import Policy, Rows
from learner.model.vision import Pixels
from learner.packing.shared_prefix import make_unit
from learner.packing.step import lay_out
from learner.settings import LoraSpec, PackingConfig, PolicyConfig
from rollout.engine import Engine, EngineConfig, WeightsRefused, WeightStore
from rollout.prompt import ChatEncoder, NativeVideo

pytestmark = pytest.mark.slow
TOLERANCE = 3e-5
TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def engine_of(
    tiny_model: Path, run: Callable, weight_store: WeightStore, request: pytest.FixtureRequest
) -> Iterator[Callable[[Path], Engine]]:
    """Returns the engine of a model folder, started once."""
    engines: dict[Path, Engine] = {}

    def started(folder: Path) -> Engine:
        if folder == tiny_model:
            return request.getfixturevalue("engine")
        if folder not in engines:
            config = EngineConfig(str(folder), native_video=True)
            engines[folder] = run(Engine.start(config, ChatEncoder(folder).banned_ids, 0, weight_store))
        return engines[folder]

    yield started
    for engine in engines.values():
        run(engine.stop())


@pytest.fixture
def either_engine(either_model: Path, engine_of: Callable[[Path], Engine]) -> Engine:
    return engine_of(either_model)


@pytest.fixture
def policy(either_model: Path, either_encoder: ChatEncoder) -> Policy:
    model = AutoModelForImageTextToText.from_pretrained(either_model, dtype=torch.float32)
    return Policy(model, either_encoder.banned_ids, PolicyConfig())


@torch.no_grad()
def learner_logprobs(
    policy: Policy, folder: Path, prompt: Prompt, frames: np.ndarray, group: tuple[Trajectory, ...]
) -> np.ndarray:
    """float32 [N]: log-probs of the group, packed into one row as in the learner."""
    unit = make_unit([prompt] * len(group), [t.token_ids for t in group], [("clip", frames)])
    (layout,) = lay_out([unit], 1, PackingConfig())[0]
    patches = Patcher.of_model(folder).patches(layout.images, layout.batch.frame_counts)
    shown = Pixels(patches, torch.from_numpy(layout.batch.grids))
    return policy(Rows.of(layout.batch), shown, 0.8).logprobs.numpy()


def engine_logprobs(group: tuple[Trajectory, ...]) -> np.ndarray:
    return np.concatenate([trajectory.logprobs for trajectory in group])


def clip(encoder: ChatEncoder, n: int) -> tuple[np.ndarray, tuple[int, int]]:
    """n frames of noise, 3 x 2 tokens each, and their (width, height) in pixels."""
    side = encoder.patch * encoder.merge
    return np.random.default_rng(n).integers(0, 256, (n, 2 * side, 3 * side, 3), np.uint8), (3 * side, 2 * side)


def test_engine_and_learner_agree_on_images(
    either_engine: Engine, run: Callable, either_encoder: ChatEncoder, policy: Policy, either_model: Path
) -> None:
    frames, size = clip(either_encoder, 6)
    parts = [part for i in range(6) for part in (f"Frame {i + 1} at {i / 2}s: ", size)]
    prompt = either_encoder.encode([*parts, "\nWhich circle is red, and where does it move?"])
    group = run(either_engine.generate(prompt, frames, 4, 0.8, 48, seed=1))
    ours = learner_logprobs(policy, either_model, prompt, frames, group)
    assert np.abs(ours - engine_logprobs(group)).max() < TOLERANCE


def test_no_banned_token_is_sampled(either_engine: Engine, run: Callable, either_encoder: ChatEncoder) -> None:
    """A random model samples almost uniformly: without the ban, about 30 of 4,000 tokens would be banned ones. Stop
    tokens may be sampled."""
    frames, size = clip(either_encoder, 2)
    prompt = either_encoder.encode([*[size] * 2, "Why?"])
    group = run(either_engine.generate(prompt, frames, 16, 1.0, 300, seed=3))
    drawn = set(np.concatenate([trajectory.token_ids for trajectory in group]).tolist())
    assert len(drawn) > 500
    assert not drawn & set(either_encoder.banned_ids)
    assert drawn & set(either_encoder.stop_ids)


@pytest.mark.parametrize("n", [8, 7])
def test_engine_and_learner_agree_on_native_videos_at_every_frame_rate(
    either_engine: Engine, run: Callable, either_encoder: ChatEncoder, policy: Policy, either_model: Path, n: int
) -> None:
    frames, size = clip(either_encoder, n)
    for spacing in (4.0, 2.0, 1.0, 0.7, 0.5, 1 / 3, 0.1, 1 / 24):
        times = tuple(0.2 + spacing * i for i in range(n))
        prompt = either_encoder.encode([NativeVideo(size, times), "\nWhich circle is red, and where does it move?"])
        group = run(either_engine.generate(prompt, frames, 4, 0.8, 32, seed=1))
        ours = learner_logprobs(policy, either_model, prompt, frames, group)
        assert np.abs(ours - engine_logprobs(group)).max() < TOLERANCE, spacing


@ray.remote(num_cpus=0)
class Rank:
    """Yields its tensors as one bucket."""

    def __init__(self, tensors: dict[str, np.ndarray]):
        self.tensors = tensors

    def weight_buckets(self, version: int, **_: Any) -> Iterator[Bucket | np.ndarray]:
        packed = Packed.of(self.tensors)
        yield packed.bucket(0, 1)
        yield packed.data


def test_the_engine_merges_an_adapter(
    either_engine: Engine,
    run: Callable,
    either_encoder: ChatEncoder,
    policy: Policy,
    either_model: Path,
    weights_actor: Any,
) -> None:
    """The learner keeps the adapter separate from the base; the engine merges it into the weights."""

    def publish(tensors: dict[str, np.ndarray]) -> int:
        version = (ray.get(weights_actor.latest.remote()) or 0) + 1
        ray.get(weights_actor.publish.remote(version, [Rank.remote(tensors)], TIMEOUT_S), timeout=TIMEOUT_S)
        return version

    in_tower = policy.family.in_vision_tower
    base = {name: p.detach().numpy() for name, p in policy.model.named_parameters() if not in_tower(name)}
    frames, size = clip(either_encoder, 4)
    prompt = either_encoder.encode([*[size] * 4, "Which circle is red?"])
    model = AutoModelForImageTextToText.from_pretrained(either_model, dtype=torch.float32)
    adapted = Policy(model, either_encoder.banned_ids, PolicyConfig(lora=LoraSpec(rank=4, alpha=6.0)))
    trained = adapted.checkpoint_parameters(frozen=False)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in trained.values():
            parameter += torch.randn_like(parameter) * 0.05
    tensors = {name: p.detach().numpy() for name, p in trained.items()} | as_constants(adapter_scales(model))

    layer = next(iter(tensors)).rpartition(".")[0]
    elsewhere = {name.replace(layer, layer + "_too"): array for name, array in tensors.items() if layer in name}
    missing = {name: array for name, array in tensors.items() if name != f"{layer}.lora_B"}
    for faulty, reason in ((missing, "incomplete"), (elsewhere, "the base has no")):
        with pytest.raises(WeightsRefused, match=reason):
            run(either_engine.update_weights(publish(faulty)))

    run(either_engine.update_weights(publish(tensors)))
    group = run(either_engine.generate(prompt, frames, 4, 0.8, 48, seed=2))
    ours = learner_logprobs(adapted, either_model, prompt, frames, group)
    assert np.abs(ours - engine_logprobs(group)).max() < TOLERANCE
    with adapters_off(model):
        without = learner_logprobs(adapted, either_model, prompt, frames, group)
    base_logprobs = learner_logprobs(policy, either_model, prompt, frames, group)
    assert np.abs(without - base_logprobs).max() < TOLERANCE
    assert np.abs(ours - without).max() > 0.1

    run(either_engine.update_weights(publish(base)))
    group = run(either_engine.generate(prompt, frames, 4, 0.8, 48, seed=2))
    assert (
        np.abs(learner_logprobs(policy, either_model, prompt, frames, group) - engine_logprobs(group)).max() < TOLERANCE
    )


@pytest.mark.parametrize("either_model", ["tiny_qwen3"], indirect=True)
def test_the_engine_loads_the_learners_weights(
    engine_of: Callable[[Path], Engine],
    run: Callable,
    either_encoder: ChatEncoder,
    policy: Policy,
    tiny_qwen3: Path,
    weights_actor: Any,
) -> None:
    """Under the learner's names, without the frozen tower, and with the tied head among the changes. For Qwen2.5-VL,
    test_weight_exchange covers this."""
    trained = {name: p for name, p in policy.model.named_parameters() if p.requires_grad}
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in trained.values():
            parameter += torch.randn_like(parameter) * 0.02
    version = (ray.get(weights_actor.latest.remote()) or 0) + 1
    rank = Rank.remote({name: p.detach().numpy() for name, p in trained.items()})
    ray.get(weights_actor.publish.remote(version, [rank], TIMEOUT_S), timeout=TIMEOUT_S)
    run(engine_of(tiny_qwen3).update_weights(version))
    frames, size = clip(either_encoder, 4)
    prompt = either_encoder.encode([*[size] * 4, "Which circle is red?"])
    group = run(engine_of(tiny_qwen3).generate(prompt, frames, 4, 0.8, 48, seed=2))
    ours = learner_logprobs(policy, tiny_qwen3, prompt, frames, group)
    assert np.abs(ours - engine_logprobs(group)).max() < TOLERANCE
