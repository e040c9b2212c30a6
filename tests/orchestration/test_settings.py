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


def test_an_overlong_penalty_follows_the_limit_of_sampling_or_is_refused_if_it_never_applies():
    shaped = [*NEEDED, "reward.terms.overlong={weight: 1.0}", "sampling.max_tokens=256"]
    load_config(TrainConfig, None, shaped)
    load_config(TrainConfig, None, [*shaped, "reward.terms.overlong.options={max_tokens: 300, cache: 60}"])
    for options, message in (
        ("{max_tokens: 768, cache: 128}", r"must satisfy max_tokens - cache < sampling\.max_tokens \(256\)"),
        ("{cache: 257}", r"max_tokens = 256, cache = 257: must satisfy 0 < cache <= max_tokens"),
    ):
        with pytest.raises(BadInput, match=r"reward\.terms\.overlong\.options: overlong: .*" + message):
            load_config(TrainConfig, None, [*shaped, f"reward.terms.overlong.options={options}"])
    named = "reward.terms.long={use: overlong, options: {max_tokens: 768, cache: 128}}"
    with pytest.raises(BadInput, match=r"reward\.terms\.long\.options: overlong"):
        load_config(TrainConfig, None, [*NEEDED, named, "sampling.max_tokens=256"])


def test_truncated_sampling_needs_a_top_k_and_gpus():
    on_gpus = [*NEEDED, "cluster.gpus_per_engine=1"]
    sampling = load_config(TrainConfig, None, [*on_gpus, "sampling.top_p=0.95", "sampling.top_k=50"]).sampling
    assert (sampling.top_p, sampling.top_k) == (0.95, 50)
    load_config(TrainConfig, None, [*on_gpus, "sampling.top_k=50"])
    for overrides, message in (
        (["sampling.top_p=0.95"], r"sampling\.top_p = 0\.95: must be 1\.0 in training without a top_k"),
        (["sampling.top_p=0", "sampling.top_k=50"], r"sampling\.top_p = 0.*above 0, and at most 1"),
        (["sampling.top_p=1.1", "sampling.top_k=50"], r"sampling\.top_p = 1\.1.*above 0, and at most 1"),
        (["sampling.top_k=-1"], r"sampling\.top_k = -1: must be 0 or more"),
        (["sampling.top_k=50", "cluster.gpus_per_engine=0"], r"sampling\.top_k = 50: must be 0 .*without GPUs"),
    ):
        with pytest.raises(BadInput, match=message):
            load_config(TrainConfig, None, [*on_gpus, *overrides])


@pytest.mark.parametrize("temperature", [0, 0.0099, 2.5, float("nan")])
def test_temperatures_that_the_engine_changes_or_that_let_banned_tokens_through_are_refused(temperature):
    load_config(TrainConfig, None, [*NEEDED, "sampling.temperature=0.01"])
    with pytest.raises(BadInput, match=r"sampling\.temperature = .*must be 0\.01 to 2"):
        load_config(TrainConfig, None, [*NEEDED, f"sampling.temperature={temperature}"])


@pytest.mark.parametrize(
    "override", ["learner.ranks=0", "cluster.rollout_engines=0", "pacing.groups_per_step=0", "steps=0"]
)
def test_impossible_sizes_are_refused(override):
    with pytest.raises(BadInput, match=override.split("=")[0].split(".")[-1]):
        load_config(TrainConfig, None, [*NEEDED, override])
