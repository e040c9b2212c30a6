"""Everything that touches DeepSpeed: process group, engine, whole-layer gathers, checkpoints.

Weights leave ZeRO-3 in buckets of whole layers, sized by `ds_numel` (a partitioned parameter's `numel()` is 0), and are
copied out inside the gather (promise 7).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

# Told, DeepSpeed does not warn about what it found; it reads this when it is imported.
os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")

import deepspeed
from deepspeed.runtime.zero.partition_parameters import GatheredParameters
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText
from transformers.integrations import HfDeepSpeedConfig

from learner.policy import Policy
from learner.settings import ZeroConfig

LAYER = re.compile(r"^(.*?\.(?:layers|blocks)\.\d+)\.")


def join_group(rank: int, world: int, address: str, port: int, timeout_s: float) -> None:
    """Join the process group: nccl where there is a GPU, gloo elsewhere."""
    os.environ.update(RANK=str(rank), LOCAL_RANK="0", WORLD_SIZE=str(world), MASTER_ADDR=address, MASTER_PORT=str(port))
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    deepspeed.init_distributed(backend, timeout=timedelta(seconds=timeout_s), auto_mpi_discovery=False, verbose=False)


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
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=getattr(torch, config.precision))
    policy = Policy(model, banned_ids, train_vision)
    trained = [p for p in policy.parameters() if p.requires_grad]
    engine, *_ = deepspeed.initialize(model=policy, model_parameters=trained, config=settings)
    del keep
    return engine


def named_parameters(engine: deepspeed.DeepSpeedEngine, frozen: bool) -> dict[str, torch.nn.Parameter]:
    """Parameters by their checkpoint names; tied ones once; frozen ones only if asked for."""
    model = engine.module.model
    return {name: p for name, p in model.named_parameters() if frozen or p.requires_grad}


def layer_buckets(sizes: dict[str, int], limit: int) -> list[list[str]]:
    """Names grouped by whole layers into buckets of at most `limit` bytes, or of one layer where that is larger."""
    layers: dict[str, list[str]] = {}
    for name in sizes:
        match = LAYER.match(name)
        layers.setdefault(match[1] if match else name.rsplit(".", 1)[0], []).append(name)
    buckets: list[list[str]] = []
    room = 0
    for names in layers.values():
        size = sum(sizes[n] for n in names)
        if not buckets or size > room:
            buckets.append([])
            room = limit
        buckets[-1] += names
        room -= size
    return buckets


def gather_buckets(
    parameters: dict[str, torch.nn.Parameter], rank: int, world: int, limit: int
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """(b, {name: whole array}) of the buckets this rank hands out: rank b mod R those numbered b.

    Every rank must run the generator to its end, since each gather is collective. bfloat16 arrays come as uint16.
    """
    sizes = {name: p.ds_numel * p.element_size() for name, p in parameters.items()}
    for index, names in enumerate(layer_buckets(sizes, limit)):
        mine = index % world == rank
        with GatheredParameters([parameters[n] for n in names], modifier_rank=None):
            arrays = {name: _copy_out(parameters[name]) for name in names} if mine else {}
        if mine:
            yield index, arrays


def _copy_out(parameter: torch.nn.Parameter) -> np.ndarray:
    tensor = parameter.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.view(torch.uint16)
    return tensor.numpy().copy()


def train_step(
    engine: deepspeed.DeepSpeedEngine, losses: Sequence[Callable[[], torch.Tensor]], learning_rate: float
) -> float:
    """One optimizer step over micro-batches; `losses` run forward and return scalars that add up to the step's loss on
    this rank. Returns the global gradient norm before clipping."""
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate
    for number, loss in enumerate(losses):
        engine.set_gradient_accumulation_boundary(number == len(losses) - 1)
        engine.backward(loss())
    engine.step()
    norm = engine.get_global_grad_norm()
    return float(norm) if norm is not None else 0.0


def save_checkpoint(engine: deepspeed.DeepSpeedEngine, folder: Path, tag: str) -> None:
    engine.save_checkpoint(str(folder), tag=tag)


def load_checkpoint(engine: deepspeed.DeepSpeedEngine, folder: Path, tag: str) -> None:
    """Raises FileNotFoundError if the checkpoint is not there."""
    path, _ = engine.load_checkpoint(str(folder), tag=tag)
    if path is None:
        raise FileNotFoundError(f"{folder}/{tag}: no checkpoint of this model")


def save_hugging_face(state: dict[str, torch.Tensor], folder: Path, source: Path) -> None:
    """Write whole weights `state` by checkpoint name, with the config and the tokenizer and processor of `source`.

    The folder appears whole or not at all, in place of one that was there."""
    whole, folder = folder, folder.with_name(folder.name + ".part")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in source.iterdir():
        if file.suffix in {".json", ".jinja", ".txt"} and not file.name.startswith("model.safetensors"):
            shutil.copy(file, folder / file.name)
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = str(next(iter(state.values())).dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    if whole.exists():
        shutil.rmtree(whole)
    folder.rename(whole)


def free_address() -> tuple[str, int]:
    """(host, port) at which the other ranks reach this process's node."""
    host = ray.util.get_node_ip_address()
    with socket.socket() as probe:
        probe.bind((host, 0))
        return host, probe.getsockname()[1]
