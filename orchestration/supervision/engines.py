"""Engine configurations: the policy's and the referee's, in a run and outside training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestration.cluster_settings import ClusterConfig
from orchestration.settings import TrainConfig
from rollout.engine import EngineConfig


@dataclass(frozen=True)
class EngineSizes:
    """The sizes of an engine, as of EngineConfig (rollout/engine).

    dtype: of weights and KV cache. max_model_len: tokens of prompt and completion together. max_num_seqs: completions
    decoded at once. max_num_batched_tokens: tokens that an engine on a GPU computes in one step.
    """

    dtype: str = "float32"
    max_model_len: int = 2048
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 8192


def engine_sizes(config: TrainConfig) -> EngineSizes:
    """The sizes that the policy's and the referee's engines of a run share."""
    sampling = config.sampling
    return EngineSizes(
        config.learner.zero.precision, sampling.max_model_len, sampling.max_num_seqs, sampling.max_num_batched_tokens
    )


def policy_engine(config: TrainConfig, images: int) -> EngineConfig:
    """The policy's engine. `images`: the largest number of images in one prompt."""
    return _engine(
        config.model.policy,
        images,
        engine_sizes(config),
        config.cluster,
        native_video=config.template.native_video,
        seed=config.seed,
        top_p=config.sampling.top_p,
        top_k=config.sampling.top_k,
    )


def standalone_engine(
    folder: str, images: int, sizes: EngineSizes, cluster: ClusterConfig, native_video: bool, seed: int
) -> EngineConfig:
    """The engine of a policy outside training. `images`: the largest number of images in one prompt."""
    return _engine(folder, images, sizes, cluster, native_video=native_video, seed=seed)


def referee_engine(sizes: EngineSizes, cluster: ClusterConfig, folder: str) -> EngineConfig:
    """The engine of the referee in `folder`. Its prompts show two images: the frame and the crop."""
    return _engine(folder, 2, sizes, cluster)


def _engine(folder: str, images: int, sizes: EngineSizes, cluster: ClusterConfig, **more: Any) -> EngineConfig:
    return EngineConfig(
        model=str(Path(folder).absolute()),
        max_images=images,
        kv_cache_gib=cluster.kv_cache_gib,
        gpu_memory_utilization=cluster.gpu_memory_utilization,
        tensor_parallel_size=cluster.tensor_parallel,
        model_runner=cluster.model_runner,
        **asdict(sizes),
        **more,
    )
