"""How a vLLM engine is started: its config, the environment of its processes and its arguments."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from evidence.families import VisionSizes

# Prompt tokens that a CPU engine prefills in one step.
PREFILL_TOKENS = 4096


@dataclass
class EngineConfig:
    """One vLLM engine.

    model: folder in Hugging Face format.
    dtype: of weights, activations and KV.
    max_model_len: tokens of prompt and completion together.
    max_num_seqs: completions decoded at once.
    max_num_batched_tokens: tokens of one step on a GPU. A CPU engine prefills a whole prompt in one step.
    max_images: images in one prompt.
    native_video: whether prompts may show one native video.
    seed: vLLM's own seed; each request has its own seed too.
    threads: CPU threads; not used on a GPU.
    kv_cache_gib: KV cache of a CPU engine, GiB; on a GPU it follows from gpu_memory_utilization.
    gpu_memory_utilization: share of each GPU's memory.
    tensor_parallel_size: GPUs of one engine.
    model_runner: vLLM's, v1 or v2; a CPU engine has v1.
    top_p, top_k: truncation of the sampling of every completion; top_k 0 switches it off. Needs a GPU engine (below).
    """

    model: str
    dtype: str = "float32"
    max_model_len: int = 2048
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 8192
    max_images: int = 16
    native_video: bool = False
    seed: int = 0
    threads: int = 1
    kv_cache_gib: float = 0.25
    gpu_memory_utilization: float = 0.85
    tensor_parallel_size: int = 1
    model_runner: str = "v1"
    top_p: float = 1.0
    top_k: int = 0


def returns_kept_sets() -> bool:
    """Whether the installed vLLM can return the tokens that truncated sampling left at each place: from 0.32 on, with
    its model runner v2, which runs on GPUs only, and with a top_k, which bounds them."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform

    return hasattr(AsyncEngineArgs, "return_sampling_mask") and not current_platform.is_cpu()


def prepare_environment(threads: int, model_runner: str = "v1") -> None:
    """Set the options that vLLM and its processes read from the environment only. Must be called before any vllm module
    is imported."""
    os.environ.update(
        HF_HUB_OFFLINE="1",
        TOKENIZERS_PARALLELISM="false",
        VLLM_LOGGING_LEVEL="ERROR",
        VLLM_NO_USAGE_STATS="1",
        # Engines share cores; vLLM's own binding would pin all of them to the same ones.
        VLLM_CPU_OMP_THREADS_BIND="nobind",
        OMP_NUM_THREADS=str(threads),
        # vLLM would choose v2 wherever Triton is. Sampler, log-probs and logit biases are different code there.
        VLLM_USE_V2_MODEL_RUNNER="1" if model_runner == "v2" else "0",
        # With 0, a CPU engine may run its worker inside the engine process, which saves a process and 400 MB.
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
    )


def _platform_arguments(config: EngineConfig) -> dict[str, Any]:
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return {
            "gpu_memory_utilization": config.gpu_memory_utilization,
            "tensor_parallel_size": config.tensor_parallel_size,
            # vLLM's own default here is 2,048: a long prompt would take many steps.
            "max_num_batched_tokens": config.max_num_batched_tokens,
        }
    # Measured on the tiny model: with compilation a start takes 48 s instead of 19 and tokens are no faster. Without
    # this variable the sampler is still compiled, which delays the first request by 11 s.
    os.environ["TORCH_COMPILE_DISABLE"] = "1"
    return {
        "kv_cache_memory_bytes": int(config.kv_cache_gib * 2**30),
        "enforce_eager": True,
        "distributed_executor_backend": "uni",
        # vLLM 0.32 rewinds a seeded request's generator after each part of a prefill but the last. A CPU generator
        # cannot do that ("CPU Generator does not use offset"), so every prompt is prefilled in one step.
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(config.max_model_len, PREFILL_TOKENS),
    }


def arguments_of(config: EngineConfig, sizes: VisionSizes) -> dict[str, Any]:
    """Arguments for vLLM's AsyncEngineArgs. sizes: of the model's vision tower."""
    least = sizes.tile**2
    most = config.max_model_len * least
    return {
        "model": config.model,
        "dtype": config.dtype,
        "seed": config.seed,
        "max_model_len": config.max_model_len,
        "max_num_seqs": config.max_num_seqs,
        "limit_mm_per_prompt": {"image": config.max_images, "video": int(config.native_video)},
        # Frames are already resized and must not be resized again: these bounds admit any frame that fits a prompt. The
        # pixels of a video are counted over all its frames, and the frames of one step share their tokens.
        "mm_processor_kwargs": {
            "images_kwargs": {"size": {"shortest_edge": least, "longest_edge": most}},
            "videos_kwargs": {
                "size": {"shortest_edge": least, "longest_edge": most * sizes.step_frames},
                "do_sample_frames": False,
            },
        },
        # The cache would hold up to 4 GiB of pixels, which are rarely requested twice.
        "mm_processor_cache_gb": 0,
        "logprobs_mode": "processed_logprobs",
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "worker_extension_cls": "rollout.weight_transfer.PrefetchExtension",
        **({"return_sampling_mask": True} if config.top_k else {}),
        **_platform_arguments(config),
    }
