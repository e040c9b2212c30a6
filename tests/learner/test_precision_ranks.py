"""Memory placement and precision of the weights: offload, master weights, an untied lm_head."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from saving import save
from shown import micro_batch, plain_gradients, plain_policy
from test_ranks import (
    gradients_of,
    require_same_first_step,
    require_same_gradients,
    step_parts,
    weights_of,
    with_bad,
)
from transformers import AutoConfig, AutoModelForImageTextToText

from learner.algorithm import AlgorithmConfig
from learner.checkpoints import record_of
from learner.model.patches import Patcher
from learner.settings import LossConfig, PolicyConfig, RankConfig, ZeroConfig
from orchestration.supervision.learner_gang import LearnerGang

pytestmark = pytest.mark.slow
LEARNING_RATE = 1e-2


@pytest.fixture(scope="module")
def untied(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose lm_head is not tied to its embedding."""
    folder = tmp_path_factory.mktemp("untied") / "model"
    shutil.copytree(tiny_model, folder)
    config = AutoConfig.from_pretrained(tiny_model)
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    torch.manual_seed(1)
    AutoModelForImageTextToText.from_config(config).to(torch.float32).save_pretrained(folder)
    return folder


@pytest.fixture
def start(ray_cluster: Any, encoder: Any) -> Iterator[Callable[[Path, int, ZeroConfig], LearnerGang]]:
    gangs: list[LearnerGang] = []

    def start(model: Path, world: int, zero: ZeroConfig) -> LearnerGang:
        loss = LossConfig(AlgorithmConfig())
        gangs.append(LearnerGang(RankConfig(str(model), encoder.banned_ids, zero=zero, loss=loss), world))
        return gangs[-1]

    yield start
    for gang in gangs:
        gang.stop()


def test_an_offloaded_step_with_an_untied_head_matches_plain_torch(
    start: Callable, untied: Path, encoder: Any, ray_cluster: Any
) -> None:
    config = ZeroConfig(grad_norm=1e9, offload_optimizer="cpu", offload_parameters="cpu")
    gang = start(untied, 2, config)
    parts = [[micro_batch(encoder, "image", 1)], [micro_batch(encoder, "text", 2)]]
    policy = plain_policy(untied, encoder, PolicyConfig())
    optimizer = torch.optim.AdamW(
        [p for p in policy.parameters() if p.requires_grad], LEARNING_RATE, config.betas, weight_decay=0.0
    )
    norm = plain_gradients(policy, Patcher.of_model(untied), parts)
    optimizer.step()
    assert gang.train_step(parts, LEARNING_RATE)["grad_norm"] == pytest.approx(norm, rel=1e-3)
    trained = policy.checkpoint_parameters(frozen=False)
    assert {"lm_head.weight", "model.language_model.embed_tokens.weight"} < trained.keys()
    gradients = {name: p.grad.numpy() for name, p in trained.items()}
    require_same_gradients(gradients_of(gang), gradients)
    theirs = {name: p.detach().numpy() for name, p in trained.items()}
    require_same_first_step(weights_of(ray_cluster, gang), theirs, gradients)


def test_steps_below_the_resolution_of_bfloat16_add_up(
    start: Callable, tiny_model: Path, encoder: Any, ray_cluster: Any
) -> None:
    gang = start(tiny_model, 1, ZeroConfig(precision="bfloat16"))
    micro = micro_batch(encoder, "image", 1)
    # The same advantage in every step: if gradients changed their sign, steps would not add up.
    part = [[replace(micro, advantages=np.ones_like(micro.advantages))]]
    # The same step in one forward and in 256: a sum in bfloat16 would lose small addends.
    small = replace(part[0][0], weights=micro.weights / 256)
    whole, split = (gang.train_step([forwards], 0.0)["grad_norm"] for forwards in (part[0], [small] * 256))
    assert split == pytest.approx(whole, rel=5e-3)
    first = weights_of(ray_cluster, gang)
    # At 2^-5 and above, neighbouring numbers are 2.4e-4 apart: a step of 1e-5 rounds back.
    large = {name: (w.view(np.int16).astype(np.int32) & 0x7FFF) >> 7 >= 127 - 5 for name, w in first.items()}

    def changed() -> float:
        now = weights_of(ray_cluster, gang)
        return float(np.mean(np.concatenate([(now[n] != first[n])[large[n]] for n in first])))

    gang.train_step(part, 1e-5)
    assert changed() == 0
    for _ in range(29):
        gang.train_step(part, 1e-5)
    assert changed() > 0.3


def test_a_skipped_step_leaves_offloaded_master_weights_unchanged(
    start: Callable, tiny_model: Path, encoder: Any, ray_cluster: Any, tmp_path: Path
) -> None:
    gang = start(tiny_model, 2, ZeroConfig(precision="bfloat16", offload_optimizer="cpu", offload_parameters="cpu"))
    parts = step_parts(encoder, 2)
    gang.train_step(parts, LEARNING_RATE)
    save(gang, tmp_path, 1)
    assert gang.train_step(with_bad(parts, advantages=np.nan), LEARNING_RATE)["skipped"]
    assert not gang.train_step(parts, LEARNING_RATE)["skipped"]
    after = weights_of(ray_cluster, gang)
    gang.load(record_of(tmp_path, 1))
    before = weights_of(ray_cluster, gang)
    gang.train_step(parts, LEARNING_RATE)
    for name, array in weights_of(ray_cluster, gang).items():
        np.testing.assert_array_equal(array, after[name], err_msg=name)
        assert (array != before[name]).any()
