"""The gang of ZeRO-3 ranks: the number of ranks does not change a step, a resumed run continues as if uninterrupted,
and exports equal the trained weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from deepspeed.utils import safe_get_full_optimizer_state
from saving import save
from transformers import AutoModelForImageTextToText

from evidence.manifest import unpack_bucket
from evidence.types import Prompt
from learner.aggregation import token_weights
from learner.algorithm import AlgorithmConfig
from learner.checkpoints import record_of
from learner.model.patches import Patcher
from learner.model.policy import Policy, Rows
from learner.model.vision import Pixels
from learner.packing.shared_prefix import make_unit
from learner.packing.step import MicroBatch, StepTargets, lay_out, with_targets
from learner.settings import LossConfig, PackingConfig, PolicyConfig, RankConfig, ZeroConfig
from orchestration.supervision.learner_gang import LearnerGang

pytestmark = pytest.mark.slow
LEARNING_RATE = 1e-2
# Adam's first moment after one step, as a share of the gradient.
FIRST_MOMENT = 0.1


def step_parts(encoder: Any, ranks: int, seed: int = 0) -> list[list[MicroBatch]]:
    """A GRPO step of three groups of four random completions, for `ranks` ranks."""
    rng = np.random.default_rng(seed)
    prompts: list[Prompt] = [encoder.encode([(56, 56), f"question {n}", (56, 56)]) for n in range(3)]
    units = []
    for n, prompt in enumerate(prompts):
        completions = [rng.integers(0, 200, rng.integers(3, 12)).astype(np.int32) for _ in range(4)]
        frames = rng.integers(0, 255, (2, 56, 56, 3), dtype=np.uint8)
        units.append(make_unit([prompt] * 4, completions, [(f"clip {seed}.{n}", frames)]))
    lengths = np.array([len(branch.targets) for unit in units for branch in unit.branches])
    targets = StepTargets(
        weights=token_weights(lengths, "sequence_mean"),
        advantages=np.repeat(rng.normal(size=len(lengths)), lengths).astype(np.float32),
        behaviour=rng.normal(-6.2, 0.1, lengths.sum()).astype(np.float32),
    )
    return with_targets(lay_out(units, ranks, PackingConfig("prefix", 150)), targets)


@pytest.fixture(scope="module")
def gangs(ray_cluster: Any, tiny_model: Path, encoder: Any) -> Any:
    config = RankConfig(
        model=str(tiny_model),
        banned_ids=encoder.banned_ids,
        loss=LossConfig(AlgorithmConfig()),
        zero=ZeroConfig(grad_norm=1e9),
        bucket_mib=1,
    )
    by_world = {world: LearnerGang(config, world) for world in (1, 2)}
    yield by_world
    for gang in by_world.values():
        gang.stop()


def with_bad(parts: list[list[MicroBatch]], **bad: float) -> list[list[MicroBatch]]:
    """The step with the value of one token on the last rank replaced."""
    ((name, value),) = bad.items()
    index = next(n for n, micro in enumerate(parts[-1]) if len(micro.weights))
    array = getattr(parts[-1][index], name).copy()
    array[0] = value
    last = [*parts[-1][:index], replace(parts[-1][index], **{name: array}), *parts[-1][index + 1 :]]
    return [*parts[:-1], last]


def weights_of(ray_cluster: Any, gang: LearnerGang, frozen: bool = False) -> dict[str, np.ndarray]:
    """All tensors that the ranks publish for the engines."""
    weights: dict[str, np.ndarray] = {}
    streams = [rank.weight_buckets.options(num_returns="streaming").remote(1, frozen) for rank in gang.ranks]
    for stream in streams:
        items = [ray_cluster.get(ref) for ref in stream]
        for header, data in zip(items[::2], items[1::2]):
            arrays = unpack_bucket(header, data)
            assert not weights.keys() & arrays.keys(), "two ranks published the same tensor"
            weights |= {name: array.copy() for name, array in arrays.items()}
    return weights


def gradients_of(gang: LearnerGang) -> dict[str, np.ndarray]:
    """The gradients of the gang's first step, from Adam's first moment."""

    def moments(rank: Any) -> dict[str, np.ndarray]:
        trained = rank.policy.checkpoint_parameters(frozen=False)
        return {name: safe_get_full_optimizer_state(p, "exp_avg").numpy() for name, p in trained.items()}

    of_rank_0, *_ = ray.get([rank.__ray_call__.remote(moments) for rank in gang.ranks], timeout=180)
    return {name: moment / FIRST_MOMENT for name, moment in of_rank_0.items()}


def require_same_gradients(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    """Equal to within 1e-4 of the largest gradient of each tensor."""
    assert ours.keys() == theirs.keys()
    for name, wanted in theirs.items():
        np.testing.assert_allclose(ours[name], wanted, atol=1e-4 * np.abs(wanted).max(), err_msg=name)


def require_same_first_step(
    ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], gradients: dict[str, np.ndarray]
) -> None:
    """Adam's first step is lr * sign(gradient), and rounding decides the sign of a gradient near 0, so only the other
    elements must agree. In a key bias a single element is 1.6% of the tensor: softmax ignores a constant added to all
    keys, and at the slowest rotary frequencies a bias is almost constant."""
    assert ours.keys() == theirs.keys() == gradients.keys()
    for name, gradient in gradients.items():
        clear = np.abs(gradient) > 1e-3 * np.abs(gradient).max()
        np.testing.assert_allclose(ours[name][clear], theirs[name][clear], atol=1e-4, err_msg=name)
    differs = np.concatenate([(np.abs(ours[name] - theirs[name]) > 1e-4).ravel() for name in gradients])
    assert differs.mean() < 2e-4


def plain_step(
    folder: Path, encoder: Any, parts: list[list[MicroBatch]]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(weights after the same step in plain torch, gradients): one process, with AdamW and an explicit loss."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    policy, patcher = Policy(model, encoder.banned_ids, PolicyConfig()), Patcher.of_model(folder)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    for micro in (m for rank in parts for m in rank):
        b = micro.batch
        patches = patcher.patches(micro.images, b.frame_counts)
        logprobs = policy(Rows.of(b), Pixels(patches, torch.from_numpy(b.grids)), 1.0).logprobs
        ratio = (logprobs - torch.from_numpy(micro.behaviour)).exp()
        advantage = torch.from_numpy(micro.advantages)
        gain = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
        (-(torch.from_numpy(micro.weights) * gain).sum()).backward()
    optimizer.step()
    return {name: p.detach().numpy() for name, p in trained.items()}, {n: p.grad.numpy() for n, p in trained.items()}


def test_a_step_is_the_same_on_one_rank_two_ranks_and_in_plain_torch(
    ray_cluster: Any, gangs: dict[int, LearnerGang], tiny_model: Path, encoder: Any, tmp_path: Path
) -> None:
    for world, gang in gangs.items():
        save(gang, tmp_path / str(world), 0)
    metrics = {w: g.train_step(step_parts(encoder, w), LEARNING_RATE) for w, g in gangs.items()}
    assert metrics[1]["loss"] == pytest.approx(metrics[2]["loss"], rel=1e-4)
    assert metrics[1]["grad_norm"] == pytest.approx(metrics[2]["grad_norm"], rel=1e-3)
    one, two = (weights_of(ray_cluster, gangs[world]) for world in (1, 2))
    plain, gradients = plain_step(tiny_model, encoder, step_parts(encoder, 1))
    norm = np.linalg.norm(np.concatenate([gradient.ravel() for gradient in gradients.values()]))
    assert metrics[1]["grad_norm"] == pytest.approx(norm, rel=1e-3)
    assert not any(name.startswith("model.visual") for name in one), "a frozen tower is not published"
    for world, weights in ((1, one), (2, two)):
        # The first step does not depend on the scale of the gradients.
        require_same_gradients(gradients_of(gangs[world]), gradients)
        require_same_first_step(weights, plain, gradients)

    exported = tmp_path / "exported"
    gangs[2].export(exported, "float32")
    reloaded = dict(AutoModelForImageTextToText.from_pretrained(exported, dtype=torch.float32).named_parameters())
    for name, array in weights_of(ray_cluster, gangs[2], frozen=True).items():
        np.testing.assert_array_equal(reloaded[name].detach().numpy(), array)

    gangs[2].load(record_of(tmp_path / "2", 0))
    gangs[2].train_step(step_parts(encoder, 2), LEARNING_RATE)
    for name, array in weights_of(ray_cluster, gangs[2]).items():
        np.testing.assert_array_equal(array, two[name], err_msg=f"{name}: the step differs after a resume")


def test_a_publication_that_reached_only_one_rank_does_not_block_the_next(ray_cluster: Any, gangs: Any) -> None:
    first, second = gangs[2].ranks

    def asked(rank: Any, attempt: int) -> Any:
        return rank.weight_buckets.options(num_returns="streaming").remote(1, False, attempt)

    given_up, late = asked(first, 1), asked(second, 2)
    whole = [asked(first, 3), asked(second, 3)]
    items = [[ray_cluster.get(ref, timeout=60) for ref in stream] for stream in (given_up, late, *whole)]
    assert items[0] == items[1] == []
    for rank, of_rank in enumerate(items[2:]):
        assert of_rank
        assert {header.index % 2 for header in of_rank[::2]} == {rank}


@pytest.mark.parametrize("bad", [{"advantages": np.nan}, {"weights": np.inf}, {"behaviour": -np.inf}], ids=str)
@pytest.mark.parametrize("world", [1, 2])
def test_a_non_finite_step_on_one_rank_changes_nothing_on_all_ranks(
    ray_cluster: Any, gangs: dict[int, LearnerGang], encoder: Any, tmp_path: Path, world: int, bad: dict[str, float]
) -> None:
    gang, parts = gangs[world], step_parts(encoder, world)
    gang.train_step(parts, LEARNING_RATE)
    save(gang, tmp_path, 1)
    before = weights_of(ray_cluster, gang)
    assert gang.train_step(with_bad(parts, **bad), LEARNING_RATE)["skipped"]
    for name, array in weights_of(ray_cluster, gang).items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    # The next step shows that master weights, moments and Adam's step count are unchanged, too.
    assert not gang.train_step(parts, LEARNING_RATE)["skipped"]
    after = weights_of(ray_cluster, gang)
    gang.load(record_of(tmp_path, 1))
    gang.train_step(parts, LEARNING_RATE)
    for name, array in weights_of(ray_cluster, gang).items():
        np.testing.assert_array_equal(array, after[name], err_msg=name)
        assert (array != before[name]).any()


def test_a_non_finite_loss_with_a_finite_gradient_skips_the_step(
    ray_cluster: Any, tiny_model: Path, encoder: Any
) -> None:
    algorithm = AlgorithmConfig(loss="tests.offset_loss:offset_loss")
    gang = LearnerGang(RankConfig(str(tiny_model), encoder.banned_ids, loss=LossConfig(algorithm)), 2)
    parts = step_parts(encoder, 2)
    before = weights_of(ray_cluster, gang)
    assert gang.train_step(with_bad(parts, advantages=np.inf), LEARNING_RATE)["skipped"]
    for name, array in weights_of(ray_cluster, gang).items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    assert not gang.train_step(parts, LEARNING_RATE)["skipped"]
    gang.stop()
