"""Real ranks that resume from a checkpoint of another number of ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from saving import save
from test_ranks import step_parts, weights_of

from evidence.errors import BadInput
from learner.algorithm import AlgorithmConfig
from learner.checkpoints import Record, checkpoints, record_of, universal
from learner.model.tiny import TinySpec, create_tiny_model
from learner.settings import LoraSpec, LossConfig, PolicyConfig, RankConfig, ZeroConfig
from learner.zero.average import read_average
from learner.zero.checkpoint import convert
from orchestration.supervision.learner_gang import LearnerGang
from rollout.prompt import ChatEncoder

pytestmark = pytest.mark.slow
LEARNING_RATE = 1e-3
DECAY = 0.75
Weights = dict[str, np.ndarray]


@contextmanager
def gang_of(model: Path, encoder: Any, world: int, policy: PolicyConfig | None = None) -> Iterator[LearnerGang]:
    config = RankConfig(
        str(model),
        encoder.banned_ids,
        policy=policy or PolicyConfig(),
        zero=ZeroConfig(grad_norm=1e9, ema=DECAY),
        loss=LossConfig(AlgorithmConfig()),
    )
    gang = LearnerGang(config, world)
    yield gang
    gang.stop()


class Run(NamedTuple):
    """The weights of two ranks before training and after each of three steps; `folder` holds a checkpoint of step 2."""

    weights: list[Weights]
    folder: Path


@pytest.fixture(scope="module")
def run(ray_cluster: Any, tiny_model: Path, encoder: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("checkpoints")
    with gang_of(tiny_model, encoder, 2) as gang:
        weights = [weights_of(ray_cluster, gang)]
        for step in range(3):
            gang.train_step(step_parts(encoder, 2, seed=step), LEARNING_RATE)
            weights.append(weights_of(ray_cluster, gang))
            if step == 1:
                save(gang, folder, 2, {"at": "two"})
    return Run(weights, folder)


def state_of(record: Path) -> dict[str, torch.Tensor]:
    """Whole master weights and moments: {parameter/kind: values}."""
    convert(record)
    files = universal(record).glob("zero/*/*.pt")
    return {f"{f.parent.name}/{f.stem}": torch.load(f, weights_only=False) for f in files}


def average_of(weights: list[Weights]) -> Weights:
    """The moving average of the weights, computed by its formula."""
    average = dict(weights[0])
    for step in weights[1:]:
        average = {name: DECAY * average[name] + (1 - DECAY) * step[name] for name in average}
    return average


def saved_average(record: Path) -> Weights:
    saved = Record.read(record)
    return {n: a.numpy() for n, a in read_average(record.with_suffix(""), saved.ranks, saved.parameters)}


def require_close(actual: Weights, expected: Weights) -> None:
    """Equal except for a few weights of each tensor: for a gradient near 0, rounding decides the direction of Adam's
    step."""
    assert actual.keys() == expected.keys()
    for name, theirs in expected.items():
        off = np.abs(actual[name] - theirs)
        assert (off > 1e-3 * LEARNING_RATE).mean() < 0.05, name
        assert off.max() <= 2 * LEARNING_RATE, name


@pytest.mark.parametrize("world", [1, 3])
def test_another_number_of_ranks_resumes_with_the_same_result(
    ray_cluster: Any, tiny_model: Path, encoder: Any, run: Run, tmp_path: Path, world: int
) -> None:
    with gang_of(tiny_model, encoder, world) as gang:
        gang.load(record_of(run.folder, 2))
        for name, array in weights_of(ray_cluster, gang).items():
            np.testing.assert_array_equal(array, run.weights[2][name], err_msg=name)
        save(gang, tmp_path, 2)
        gang.train_step(step_parts(encoder, world, seed=2), LEARNING_RATE)
        require_close(weights_of(ray_cluster, gang), run.weights[3])
        save(gang, tmp_path, 3)
        gang.load(record_of(tmp_path, 3))  # and again, on the same number of ranks
    again, after = checkpoints(tmp_path)
    # Nothing else is written while the ranks are in collectives: an error there would leave the others waiting.
    assert {path.name for path in after.with_suffix("").iterdir()} == set(Record.read(after).files)
    (first,) = checkpoints(run.folder)
    assert Record.read(first).state == {"step": 2, "at": "two"}
    ours, theirs = state_of(again), state_of(first)
    assert ours.keys() == theirs.keys()
    assert {key.rsplit("/")[1] for key in ours} == {"fp32", "exp_avg", "exp_avg_sq"}
    for key, values in theirs.items():
        torch.testing.assert_close(ours[key], values, rtol=0, atol=0, msg=key)
    average = average_of(run.weights[:3])
    for name, values in saved_average(first).items():
        np.testing.assert_allclose(values, average[name], rtol=1e-5, atol=1e-7, err_msg=name)
    require_close(saved_average(after), average_of(run.weights))


@pytest.mark.parametrize(
    "policy",
    [PolicyConfig(lora=LoraSpec(rank=4)), PolicyConfig(train_vision=True, vision_lr_factor=0.1)],
    ids=["lora", "vision"],
)
def test_an_adapter_and_a_tower_with_its_own_rate_resume_on_fewer_ranks(
    ray_cluster: Any, tiny_model: Path, encoder: Any, tmp_path: Path, policy: PolicyConfig
) -> None:
    with gang_of(tiny_model, encoder, 2, policy) as gang:
        gang.train_step(step_parts(encoder, 2, seed=0), LEARNING_RATE)
        save(gang, tmp_path, 1)
        saved = weights_of(ray_cluster, gang)
        gang.train_step(step_parts(encoder, 2, seed=1), LEARNING_RATE)
        expected = weights_of(ray_cluster, gang)
    with gang_of(tiny_model, encoder, 1, policy) as gang:
        gang.load(record_of(tmp_path, 1))
        for name, array in weights_of(ray_cluster, gang).items():
            np.testing.assert_array_equal(array, saved[name], err_msg=name)
        gang.train_step(step_parts(encoder, 1, seed=1), LEARNING_RATE)
        require_close(weights_of(ray_cluster, gang), expected)


def test_another_model_is_refused_by_the_first_parameter_that_differs(
    ray_cluster: Any, run: Run, tmp_path: Path
) -> None:
    narrow = tmp_path / "narrow"
    create_tiny_model(narrow, TinySpec(text_width=96), corpus=("red circle",) * 3)
    message = (
        r"step-000002.json: .* model.language_model.embed_tokens.weight is \[\d+, 128\] there, and \[\d+, 96\] here"
    )
    with gang_of(narrow, ChatEncoder(narrow), 1) as gang, pytest.raises(BadInput, match=message):
        gang.load(record_of(run.folder, 2))
