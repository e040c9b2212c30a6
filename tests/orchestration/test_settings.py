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


def test_truncated_sampling_needs_a_top_k_and_the_model_runner_that_returns_what_was_left():
    on_gpus = [*NEEDED, "cluster.gpus_per_engine=1", "cluster.model_runner=v2"]
    sampling = load_config(TrainConfig, None, [*on_gpus, "sampling.top_p=0.95", "sampling.top_k=50"]).sampling
    assert (sampling.top_p, sampling.top_k) == (0.95, 50)
    load_config(TrainConfig, None, [*on_gpus, "sampling.top_k=50"])
    for overrides, message in (
        (["sampling.top_p=0.95"], r"sampling\.top_p = 0\.95: must be 1\.0 in training without a top_k"),
        (["sampling.top_p=0", "sampling.top_k=50"], r"sampling\.top_p = 0.*above 0, and at most 1"),
        (["sampling.top_p=1.1", "sampling.top_k=50"], r"sampling\.top_p = 1\.1.*above 0, and at most 1"),
        (["sampling.top_k=-1"], r"sampling\.top_k = -1: must be 0 or more"),
        (["sampling.top_k=50", "cluster.model_runner=v1"], r"sampling\.top_k = 50: must be 0 .*model_runner=v2"),
        (["cluster.gpus_per_engine=0"], r"cluster\.model_runner = v2: must be v1 for engines without GPUs"),
        (["cluster.model_runner=v3"], r"cluster\.model_runner = v3: must be one of v1, v2"),
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


ONE_GPU = ["cluster.colocated=true", "cluster.gpus_per_rank=1", "learner.ranks=1"]
SHARES = ["cluster.gpus_per_engine=0.3", "cluster.gpu_memory_utilization=0.3"]


def test_ranks_and_engines_on_one_gpu_divide_it():
    config = load_config(TrainConfig, None, [*NEEDED, *ONE_GPU, *SHARES])
    assert (config.gpus, config.engines, config.rank_share) == (1, 2, 0.4)
    assert load_config(TrainConfig, None, [*NEEDED, "cluster.gpus_per_rank=1"]).rank_share == 1
    referee = "model.referee={model: r, gpu_memory_utilization: 0.2}"
    assert load_config(TrainConfig, None, [*NEEDED, *ONE_GPU, *SHARES, referee]).memory_shares == [0.3, 0.2]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["learner.ranks=2"], r"learner\.ranks = 2: must be 1 with cluster\.colocated"),
        (["cluster.gpus_per_rank=0"], r"cluster\.gpus_per_rank = 0\.0: must be 1 with cluster\.colocated"),
        (
            ["cluster.gpus_per_engine=0.5"],
            r"cluster\.gpus_per_engine = 0\.5: must be above 0 and below 0\.5, of 2 engines",
        ),
        (["cluster.gpus_per_engine=0"], r"cluster\.gpus_per_engine = 0\.0: must be above 0"),
        (["cluster.gpu_memory_utilization=0.5"], r"gpu_memory_utilization = 0\.5: .* below 1, not 1$"),
        (
            ["model.referee={model: r, gpu_memory_utilization: 0.8}"],
            r"gpu_memory_utilization = 0\.3: .* below 1, not 1\.1$",
        ),
        (
            ["learner.reference=frozen", "algorithm.kl.coefficient=0.1"],
            r"reference\.kind = frozen: must be none or lora",
        ),
    ],
)
def test_a_division_of_one_gpu_that_leaves_nothing_is_refused(overrides, message):
    with pytest.raises(BadInput, match=message):
        load_config(TrainConfig, None, [*NEEDED, *ONE_GPU, *SHARES, *overrides])


def test_an_engine_computes_a_token_of_each_sequence_in_a_step():
    with pytest.raises(BadInput, match=r"max_num_batched_tokens = 63: must be at least max_num_seqs \(64\)"):
        load_config(TrainConfig, None, [*NEEDED, "sampling.max_num_batched_tokens=63"])
