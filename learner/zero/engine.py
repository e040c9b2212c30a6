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
from learner.settings import SUB_GROUP, RankConfig, ZeroConfig
from learner.zero.gather import replicated

# Key of a parameter group: its learning rate as a multiple of the step's.
LR_FACTOR = "lr_factor"


def build_engine(config: RankConfig) -> deepspeed.DeepSpeedEngine:
    """Load the model of `config`, sharded while it loads, into a ZeRO-3 engine; without an optimizer if it is not
    trained.

    A frozen vision tower is taken out first and is whole on each rank (`engine.module.frozen_tower`).
    """
    settings = _settings(config.zero, config.trained)
    # transformers shards at load while this object exists.
    keep = HfDeepSpeedConfig(settings)
    device = torch.device(get_accelerator().current_device_name())
    model = AutoModelForImageTextToText.from_pretrained(config.model, dtype=getattr(torch, config.zero.precision))
    del keep
    policy = Policy(model, config.banned_ids, config.policy, attention_for(device.type))
    if not config.policy.train_vision:
        tower = replicated(policy.take_tower(), device)
        policy.frozen_tower = FrozenTower(tower, policy.family.deepstack, config.policy.vision_cache_mib << 20)
    for buffer in policy.buffers():  # DeepSpeed moves only the parameters of a sharded model to the device
        buffer.data = buffer.data.to(device)
    if config.trained:
        engine, *_ = deepspeed.initialize(model=policy, model_parameters=_groups(policy), config=settings)
    else:
        engine, *_ = deepspeed.initialize(model=policy.requires_grad_(False), config=settings)
    return engine


def _settings(config: ZeroConfig, trained: bool) -> dict[str, Any]:
    cuda = torch.cuda.is_available()
    zero: dict[str, Any] = {"stage": 3, "overlap_comm": cuda, "sub_group_size": SUB_GROUP}
    if config.offload_parameters == "cpu":
        zero["offload_param"] = {"device": "cpu", "pin_memory": cuda}
    if config.offload_optimizer == "cpu":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": cuda}
    # torch's AdamW on every device, because DeepSpeed's would compile a kernel at start.
    adam = {"lr": 0.0, "betas": list(config.betas), "weight_decay": config.weight_decay, "torch_adam": True}
    if cuda:
        adam["fused"] = True  # one kernel without temporaries, on the host too where the optimizer is offloaded
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.grad_norm,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": config.precision == "bfloat16"},
        # Accumulated in bfloat16, the gradients of later forwards would be rounded away.
        "data_types": {"grad_accum_dtype": "fp32"},
        "steps_per_print": 10**9,
        **({"optimizer": {"type": "AdamW", "params": adam}} if trained else {}),
    }


def _groups(policy: Policy) -> list[dict[str, Any]]:
    """One parameter group per learning rate. DeepSpeed drops an empty group."""
    trained = policy.checkpoint_parameters(frozen=False)
    in_tower = policy.family.in_vision_tower
    vision = [p for name, p in trained.items() if in_tower(name)]
    language = [p for name, p in trained.items() if not in_tower(name)]
    factor = policy.config.vision_lr_factor
    return [{"params": language, LR_FACTOR: 1.0}, {"params": vision, LR_FACTOR: factor}]


def named_parameters(engine: deepspeed.DeepSpeedEngine, frozen: bool) -> dict[str, torch.nn.Parameter]:
    """Parameters by checkpoint name, tied ones once, frozen ones only if `frozen`."""
    return engine.module.checkpoint_parameters(frozen)


def train_step(
    engine: deepspeed.DeepSpeedEngine, losses: Sequence[Callable[[], torch.Tensor]], learning_rate: float
) -> float | None:
    """Run one optimizer step over micro-batches. Each of `losses` runs a forward and returns a scalar; they add up to
    the step's loss on this rank. Returns the global gradient norm before clipping.

    Returns None, with weights, moments and master weights unchanged, if a loss or gradient of any rank was not finite.
    All ranks agree on it, because they see it in the norm of the reduced gradients."""
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate * group[LR_FACTOR]
    for number, loss in enumerate(losses):
        engine.set_gradient_accumulation_boundary(number == len(losses) - 1)
        value = loss()
        # A loss can be non-finite on one rank while its gradient is finite; multiplied by NaN, the gradients of all
        # ranks show it after reduction.
        engine.backward(value if value.isfinite() else value * math.nan)
    engine.step()
    return float(engine.get_global_grad_norm()) if engine.was_step_applied() else None
