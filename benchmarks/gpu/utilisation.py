"""Model FLOPs utilisation of a forward and backward at the shapes of 3B and 7B, over a row of groups.

FLOPs are those of benchmarks/flops: what checkpointing and the head repeat is not counted. The optimizer is left out,
since its states for 7B do not fit one GPU; benchmarks/gpu/optimizer measures it. Rows hold no images. The goal for the
7B is .40 of the published rate.
"""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.flops import language_flops
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.workload import Work, make_policy, make_row, text_config
from orchestration.planning.gpus import GPUS

TOKENS, GROUPS = 16_384, 2  # a row of two prompts of 4,100 tokens, each with 8 completions of 512
SMALL_TOKENS = 300
SQUARE, SMALL_SQUARE = 8192, 256
GOAL = 0.40


def measure(setting: Setting, shape: str) -> dict[str, Any]:
    policy = make_policy(shape, setting, checkpointing=True)
    tokens = SMALL_TOKENS if setting.small else TOKENS
    micro = make_row(tokens, GROUPS, completion=16) if setting.small else make_row(tokens, GROUPS)
    work = Work.of(policy, micro, setting.device)
    peak_gib, seconds = setting.peak_gib(work.step), setting.seconds(work.step)
    rate = language_flops(text_config(policy), micro.batch) / seconds
    published, matmul = published_flops(setting), matmul_flops(setting)
    return {
        "shape": shape,
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_s": tokens / seconds,
        "peak_gib": peak_gib,
        "tflop_per_s": rate / 1e12,
        "mfu": rate / published if published else None,
        "goal": GOAL if shape == "7b" else None,
        "of_a_matrix_product": rate / matmul,
        "matrix_product_tflop_per_s": matmul / 1e12,
    }


def published_flops(setting: Setting) -> float | None:
    """The card's dense bfloat16 rate, if it is one that `ser plan` knows."""
    if not setting.on_gpu:
        return None
    name = torch.cuda.get_device_name().lower()
    return next((gpu.flops for key, gpu in GPUS.items() if key.partition("-")[0] in name), None)


def matmul_flops(setting: Setting) -> float:
    """The measured rate of a large product of matrices."""
    side = SMALL_SQUARE if setting.small else SQUARE
    a, b = torch.randn(2, side, side, device=setting.device, dtype=setting.dtype)
    return 2 * side**3 / setting.seconds(lambda: a @ b, repeats=10)
