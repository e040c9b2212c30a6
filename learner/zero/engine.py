"""The DeepSpeed engine: the model sharded while it loads, and one optimizer step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import deepspeed
import torch
from deepspeed.accelerator import get_accelerator
from transformers import AutoModelForImageTextToText
from transformers.integrations import HfDeepSpeedConfig

from learner.model.attention import attention_for
from learner.model.policy import Policy
from learner.model.vision import FrozenTower
from learner.settings import RankConfig, ZeroConfig
from learner.zero.gather import replicated

# Of a parameter group: what its learning rate is of the step's.
LR_FACTOR = "lr_factor"


def build_engine(config: RankConfig) -> deepspeed.DeepSpeedEngine:
    """The model of `config`, sharded while it loads, behind a ZeRO-3 engine; without an optimizer if it is not trained.

    A frozen vision tower is taken out of it before, and is whole on each rank (`engine.module.frozen_tower`).
    """
    settings = _settings(config.zero, config.trained)
    # transformers shards at load while this object lives.
    keep = HfDeepSpeedConfig(settings)
    device = torch.device(get_accelerator().current_device_name())
    model = AutoModelForImageTextToText.from_pretrained(config.model, dtype=getattr(torch, config.zero.precision))
    del keep
    policy = Policy(model, config.banned_ids, config.policy, attention_for(device.type))
    if not config.policy.train_vision:
        tower = replicated(policy.take_tower(), device)
        policy.frozen_tower = FrozenTower(tower, policy.family.deepstack, config.policy.vision_cache_mib << 20)
    for buffer in policy.buffers():  # DeepSpeed places a sharded model's parameters only
        buffer.data = buffer.data.to(device)
    if config.trained:
        engine, *_ = deepspeed.initialize(model=policy, model_parameters=_groups(policy), config=settings)
    else:
        engine, *_ = deepspeed.initialize(model=policy.requires_grad_(False), config=settings)
    return engine


def _settings(config: ZeroConfig, trained: bool) -> dict[str, Any]:
    cuda = torch.cuda.is_available()
    zero: dict[str, Any] = {"stage": 3, "overlap_comm": cuda}
    if config.offload_parameters == "cpu":
        zero["offload_param"] = {"device": "cpu", "pin_memory": cuda}
    if config.offload_optimizer == "cpu":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": cuda}
    # torch's own AdamW, on whichever device: DeepSpeed's would compile a kernel at start.
    adam = {"lr": 0.0, "betas": list(config.betas), "weight_decay": config.weight_decay, "torch_adam": True}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.grad_norm,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": config.precision == "bfloat16"},
        # Over many forwards, bfloat16 would round away what the later ones add.
        "data_types": {"grad_accum_dtype": "fp32"},
        "steps_per_print": 10**9,
        **({"optimizer": {"type": "AdamW", "params": adam}} if trained else {}),
    }


def _groups(policy: Policy) -> list[dict[str, Any]]:
    """Parameters trained at one rate each; DeepSpeed leaves out a group that is empty."""
    trained = policy.checkpoint_parameters(frozen=False)
    in_tower = policy.family.in_vision_tower
    vision = [p for name, p in trained.items() if in_tower(name)]
    language = [p for name, p in trained.items() if not in_tower(name)]
    factor = policy.config.vision_lr_factor
    return [{"params": language, LR_FACTOR: 1.0}, {"params": vision, LR_FACTOR: factor}]


def named_parameters(engine: deepspeed.DeepSpeedEngine, frozen: bool) -> dict[str, torch.nn.Parameter]:
    """Parameters by their checkpoint names; tied ones once; frozen ones only if asked for."""
    return engine.module.checkpoint_parameters(frozen)


def train_step(
    engine: deepspeed.DeepSpeedEngine, losses: Sequence[Callable[[], torch.Tensor]], learning_rate: float
) -> float | None:
    """One optimizer step over micro-batches; `losses` run forward and return scalars that add up to the step's loss on
    this rank. Returns the global gradient norm before clipping.

    None, with weights, moments and master weights untouched, where a loss or a gradient of any rank was not finite: all
    ranks see it alike, in the norm of what they reduced together."""
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate * group[LR_FACTOR]
    for number, loss in enumerate(losses):
        engine.set_gradient_accumulation_boundary(number == len(losses) - 1)
        value = loss()
        # A loss can be broken where its gradient is not, and on one rank alone: times NaN, all gradients tell of it.
        engine.backward(value if value.isfinite() else value * math.nan)
    engine.step()
    return float(engine.get_global_grad_norm()) if engine.was_step_applied() else None
