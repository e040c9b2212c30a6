"""The engine configurations of a run, as far as a machine without a GPU can check them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestration.config import load_config
from orchestration.settings import TrainConfig
from orchestration.supervision.engines import engine_sizes, policy_engine, referee_engine
from rollout.engine import EngineConfig
from rollout.engine_setup import _platform_arguments

GPU_CONFIG = Path(__file__).parents[3] / "configs/experiment/gpu_7b.yaml"
FOLDERS = ("data.train=a.json", "data.heldout=b.json", "model.policy=/policy", "model.referee=/referee")


def engines(*overrides: str) -> tuple[EngineConfig, EngineConfig]:
    config = load_config(TrainConfig, GPU_CONFIG, [*FOLDERS, *overrides])
    return policy_engine(config, 20), referee_engine(engine_sizes(config), config.cluster, "/referee")


def test_policy_and_referee_have_their_own_models_and_share_their_sizes() -> None:
    policy, referee = engines("template.native_video=true", "seed=7")
    assert (policy.model, policy.max_images, policy.native_video, policy.seed) == ("/policy", 20, True, 7)
    assert (referee.model, referee.max_images, referee.native_video) == ("/referee", 2, False)
    for engine in (policy, referee):
        assert (engine.dtype, engine.max_model_len, engine.max_num_seqs) == ("bfloat16", 17152, 128)


def test_vllm_gets_the_gpu_settings_of_the_cluster_section(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vllm.platforms.current_platform", SimpleNamespace(is_cpu=lambda: False))
    sizes = ("cluster.gpus_per_engine=2", "cluster.tensor_parallel=2", "cluster.gpu_memory_utilization=0.6")
    for engine in engines(*sizes):
        assert _platform_arguments(engine) == {"gpu_memory_utilization": 0.6, "tensor_parallel_size": 2}
    for engine in engines():
        assert _platform_arguments(engine) == {"gpu_memory_utilization": 0.85, "tensor_parallel_size": 1}
