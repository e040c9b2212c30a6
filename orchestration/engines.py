"""What the engines of a run are started with: the policy's and the referee's, of one config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestration.settings import TrainConfig
from rollout.engine import EngineConfig


def policy_engine(config: TrainConfig, images: int) -> EngineConfig:
    """`images`: the most that one prompt shows."""
    return EngineConfig(
        model=str(Path(config.model.policy).absolute()),
        max_images=images,
        native_video=config.template.native_video,
        seed=config.seed,
        **_common(config),
    )


def referee_engine(config: TrainConfig, folder: str) -> EngineConfig:
    """Of the referee in `folder`. A verdict's prompt shows the frame and the crop."""
    return EngineConfig(model=str(Path(folder).absolute()), max_images=2, **_common(config))


def _common(config: TrainConfig) -> dict[str, Any]:
    cluster = config.cluster
    return {
        "dtype": config.learner.zero.precision,
        "max_model_len": config.sampling.max_model_len,
        "max_num_seqs": config.sampling.max_num_seqs,
        "kv_cache_gib": cluster.kv_cache_gib,
        "gpu_memory_utilization": cluster.gpu_memory_utilization,
        "tensor_parallel_size": cluster.tensor_parallel,
    }
