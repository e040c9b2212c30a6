"""The engine configurations of a run, as far as a machine without a GPU can check them."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestration.config import load_config
from orchestration.settings import TrainConfig
from orchestration.supervision import referee_pool
from orchestration.supervision.engines import engine_sizes, policy_engine, referee_engine
from orchestration.supervision.referee_pool import make_pool
from referee.service.sources import RefereeSource
from rollout.engine import EngineConfig
from rollout.engine_setup import _platform_arguments, prepare_environment

GPU_CONFIG = Path(__file__).parents[3] / "configs/experiment/gpu/qwen2_5_vl_7b_8.yaml"
FOLDERS = ("data.train=a.json", "data.heldout=b.json", "model.policy=/policy", "model.referee=/referee")


def engines(*overrides: str) -> tuple[EngineConfig, EngineConfig]:
    config = load_config(TrainConfig, GPU_CONFIG, [*FOLDERS, *overrides])
    return policy_engine(config, 20), referee_engine(engine_sizes(config), config.cluster, "/referee")


def test_policy_and_referee_have_their_own_models_and_share_their_sizes() -> None:
    policy, referee = engines("template.native_video=true", "seed=7")
    assert (policy.model, policy.max_images, policy.native_video, policy.seed) == ("/policy", 20, True, 7)
    assert (referee.model, referee.max_images, referee.native_video) == ("/referee", 2, False)
    for engine in (policy, referee):
        assert (engine.dtype, engine.max_model_len, engine.max_num_seqs) == ("bfloat16", 8192, 128)


def test_vllm_gets_the_gpu_settings_of_the_cluster_section(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vllm.platforms.current_platform", SimpleNamespace(is_cpu=lambda: False))
    sizes = ("cluster.gpus_per_engine=2", "cluster.tensor_parallel=2", "cluster.gpu_memory_utilization=0.6")
    names = "gpu_memory_utilization", "tensor_parallel_size", "max_num_batched_tokens"
    for engine in engines(*sizes, "sampling.max_num_batched_tokens=999"):
        assert _platform_arguments(engine) == dict(zip(names, (0.6, 2, 999)))
    for engine in engines():
        assert _platform_arguments(engine) == dict(zip(names, (0.85, 1, 16384)))


def test_the_model_runner_is_the_tested_one_unless_the_config_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    # The environment wins in vLLM, so a value that is left over from elsewhere must not.
    for overrides, flag in (((), "0"), (("cluster.model_runner=v2",), "1")):
        monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "1")
        for name in ("HF_HUB_OFFLINE", "VLLM_LOGGING_LEVEL", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM"):
            monkeypatch.setenv(name, os.environ.get(name, ""))
        for engine in engines(*overrides):
            prepare_environment(1, engine.model_runner)
            assert os.environ["VLLM_USE_V2_MODEL_RUNNER"] == flag


def test_a_referee_takes_its_own_share_of_a_gpu() -> None:
    source = RefereeSource("/referee", gpu_memory_utilization=0.2)
    config = load_config(TrainConfig, GPU_CONFIG)
    engine = partial(referee_engine, engine_sizes(config), config.cluster)
    made = []
    pool = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=made.append))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(referee_pool, "actor_class", lambda _: pool)
        make_pool(source, config.referee, config.verification, engine, 1.0, config.limits)._fleet._create()
    assert made[0].source.gpu_memory_utilization == 0.2
