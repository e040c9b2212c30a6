"""The DeepSpeed engine: the model sharded while it loads, and one optimizer step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import deepspeed
import torch
from transformers import AutoModelForImageTextToText
from transformers.integrations import HfDeepSpeedConfig

from learner.attention import attention_for
from learner.policy import Policy
from learner.settings import ZeroConfig


def build_engine(
    folder: str, config: ZeroConfig, banned_ids: Sequence[int], train_vision: bool
) -> deepspeed.DeepSpeedEngine:
    """The model in `folder` (Hugging Face format), sharded while it loads, behind a ZeRO-3 engine."""
    bf16 = config.precision == "bfloat16"
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.grad_norm,
        "zero_optimization": {"stage": 3, "overlap_comm": torch.cuda.is_available()},
        "bf16": {"enabled": bf16},
        "optimizer": {
            "type": "AdamW",
            # torch's own AdamW: DeepSpeed's would compile a kernel at start.
            "params": {"lr": 0.0, "betas": list(config.betas), "weight_decay": config.weight_decay, "torch_adam": True},
        },
        "steps_per_print": 10**9,
    }
    # transformers shards at load while this object lives.
    keep = HfDeepSpeedConfig(settings)
    model = AutoModelForImageTextToText.from_pretrained(
        folder,
        dtype=getattr(torch, config.precision),
        attn_implementation=attention_for("cuda" if torch.cuda.is_available() else "cpu"),
    )
    policy = Policy(model, banned_ids, train_vision)
    trained = [p for p in policy.parameters() if p.requires_grad]
    engine, *_ = deepspeed.initialize(model=policy, model_parameters=trained, config=settings)
    del keep
    return engine


def named_parameters(engine: deepspeed.DeepSpeedEngine, frozen: bool) -> dict[str, torch.nn.Parameter]:
    """Parameters by their checkpoint names; tied ones once; frozen ones only if asked for."""
    model = engine.module.model
    return {name: p for name, p in model.named_parameters() if frozen or p.requires_grad}


def train_step(
    engine: deepspeed.DeepSpeedEngine, losses: Sequence[Callable[[], torch.Tensor]], learning_rate: float
) -> float | None:
    """One optimizer step over micro-batches; `losses` run forward and return scalars that add up to the step's loss on
    this rank. Returns the global gradient norm before clipping.

    None, with weights, moments and master weights untouched, where a loss or a gradient of any rank was not finite: all
    ranks see it alike, in the norm of what they reduced together."""
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate
    for number, loss in enumerate(losses):
        engine.set_gradient_accumulation_boundary(number == len(losses) - 1)
        value = loss()
        # A loss can be broken where its gradient is not, and on one rank alone: times NaN, all gradients tell of it.
        engine.backward(value if value.isfinite() else value * math.nan)
    engine.step()
    return float(engine.get_global_grad_norm()) if engine.was_step_applied() else None
