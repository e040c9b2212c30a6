"""Checks within the training config."""

from __future__ import annotations

import pytest

from evidence.errors import BadInput
from orchestration.config import load_config
from orchestration.settings import TrainConfig

NEEDED = ["data.train=a", "data.heldout=b", "model.policy=p", "model.referee=r", "steps=3", "run_dir=runs/x"]
NEEDED += ["reward=ser_no_temporal"]


@pytest.mark.parametrize(
    "override",
    [
        "sampling.top_p=0.95",
        "sampling.top_k=20",
        "sampling.min_p=0.1",
        "sampling.presence_penalty=1",
        "sampling.frequency_penalty=1",
        "sampling.repetition_penalty=1.1",
    ],
)
def test_training_refuses_sampling_that_differs_from_the_learners_softmax(override):
    with pytest.raises(BadInput, match="softmax"):
        load_config(TrainConfig, None, [*NEEDED, override])


@pytest.mark.parametrize("temperature", [0, 2.5])
def test_temperatures_that_let_banned_tokens_through_are_refused(temperature):
    with pytest.raises(BadInput, match=r"sampling\.temperature = .* at most 2"):
        load_config(TrainConfig, None, [*NEEDED, f"sampling.temperature={temperature}"])


@pytest.mark.parametrize(
    "override", ["learner.ranks=0", "cluster.rollout_engines=0", "pacing.groups_per_step=0", "steps=0"]
)
def test_impossible_sizes_are_refused(override):
    with pytest.raises(BadInput, match=override.split("=")[0].split(".")[-1]):
        load_config(TrainConfig, None, [*NEEDED, override])
