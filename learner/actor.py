"""The actor of one ZeRO-3 rank. The ranks run in lockstep: every call goes to all of them.

Guarantees: a step's loss is a sum over tokens whose weights sum to 1 over all ranks, so the number of ranks does not
change it; weights and checkpoints are those of the step at which they were requested, since an actor runs its calls in
order.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
import torch
from torch.distributed import TCPStore

from evidence.gpu_memory import wait_for_memory
from learner.checkpoints import Saved
from learner.losses import LossResult, PolicyOutput, TokenTargets, make_loss
from learner.model.hugging_face import save_hugging_face
from learner.model.lora import adapter_scales, adapters_off, as_constants, merge
from learner.model.patches import Patcher
from learner.model.policy import Policy, Rows
from learner.model.vision import Features, Pixels
from learner.packing.step import MicroBatch, MicroLayout
from learner.sent_weights import SentWeights
from learner.settings import RankConfig
from learner.zero.average import WeightAverage
from learner.zero.background_writer import BackgroundWriter, Written
from learner.zero.checkpoint import copy_out, load_checkpoint, saved_parameters
from learner.zero.engine import build_engine, named_parameters, train_step
from learner.zero.gather import Gathered, gather_buckets, whole_numel
from learner.zero.process_group import in_newest_attempt, join_group, listen

GIB = 2**30
# Of a rank's share of its GPU, before it loads the model. The rest are contexts of the driver and of engines beside it.
MOSTLY_FREE = 0.9


@ray.remote
class LearnerRank:
    """One rank of the learner. Call `join` first, on all ranks at once."""

    def __init__(self, config: RankConfig, rank: int, world: int):
        torch.set_num_threads(config.threads)
        self.config, self.rank, self.world = config, rank, world
        self.loss = make_loss(config.loss.algorithm)
        self.patcher = Patcher.of_model(config.model)
        self.fetched: list[np.ndarray] = []
        self.sent = SentWeights()

    def listen(self) -> tuple[str, int]:
        """Open the store through which the ranks meet. Returns its (host, port). Called on rank 0 only."""
        host = ray.util.get_node_ip_address()
        self.store = listen(host, self.world, self.config.limits.collective_s)
        return host, self.store.port

    def join(self, host: str, port: int) -> int:
        """Form the process group and load the model. Returns the number of trained parameters."""
        timeout_s = self.config.limits.collective_s
        if self.rank:
            self.store = TCPStore(host, port, self.world, timeout=timedelta(seconds=timeout_s))
        join_group(self.store, self.rank, self.world, timeout_s)
        config = self.config
        wait_for_memory(MOSTLY_FREE * config.gpu_share)
        self.engine = build_engine(config)
        self.policy: Policy = self.engine.module
        self.scales = adapter_scales(self.policy.model)
        self.writer = self.engine.checkpoint_engine = BackgroundWriter(self.engine._config)
        self.average = WeightAverage(self.engine, config.zero.ema) if config.zero.ema is not None else None
        return sum(whole_numel(p) for p in named_parameters(self.engine, frozen=False).values())

    def device(self) -> str:
        """What the driver of this rank's GPU calls it; empty without one."""
        return torch.cuda.get_device_name() if torch.cuda.is_available() else ""

    def fetch(self, frames: Sequence[Any]) -> None:
        """Copy frames to this node and keep them until the next step has ended."""
        refs = [frame for frame in frames if isinstance(frame, ray.ObjectRef)]
        self.fetched = ray.get(refs, timeout=self.config.limits.step_s)

    def train_step(self, micro_batches: Sequence[MicroBatch], learning_rate: float) -> dict[str, Any]:
        """Run one optimizer step. Returns this rank's share of the metrics; the shares add up over the ranks. Those of
        `grad_norm`, `seconds`, and the memory of process and GPU (its peak) add up to the mean. `skipped` is above 0 if
        a loss or gradient was not finite; then no rank has changed anything."""
        start = time.monotonic()
        metrics: dict[str, Any] = {}

        def run(micro: MicroBatch) -> torch.Tensor:
            result = self._forward(micro)
            for name, value in {"loss": result.loss.item(), **result.metrics}.items():
                metrics[name] = metrics.get(name, 0.0) + value
            if result.ratio_counts is not None:
                metrics["ratio_counts"] = metrics.get("ratio_counts", 0.0) + result.ratio_counts
            # DeepSpeed averages gradients over ranks, but the token weights already contain the mean.
            return result.loss * self.world

        norm = train_step(self.engine, [partial(run, m) for m in micro_batches], learning_rate)
        self.fetched = []
        if self.policy.frozen_tower is not None:
            cache = self.policy.frozen_tower.cache
            metrics |= {"vision_hits": cache.hits, "vision_misses": cache.misses}
        if self.average and norm is not None:
            self.average.update()
        per_step = {
            "grad_norm": math.nan if norm is None else norm,
            "skipped": float(norm is None),
            "seconds": time.monotonic() - start,
            "host_gib": psutil.Process().memory_info().rss / GIB,
        }
        if torch.cuda.is_available():
            per_step["gpu_gib"] = torch.cuda.max_memory_allocated() / GIB
            torch.cuda.reset_peak_memory_stats()
        return metrics | {name: value / self.world for name, value in per_step.items()}

    @torch.no_grad()
    def logprobs(self, layouts: Sequence[MicroLayout]) -> list[np.ndarray]:
        """Log-probs under the current weights: float32 [N] for each forward. Every rank must call it equally often."""
        return [self._output(layout).logprobs.cpu().numpy() for layout in layouts]

    def reference_logprobs(self, layouts: Sequence[MicroLayout]) -> list[np.ndarray]:
        """Like `logprobs`, with the LoRA adapter switched off."""
        with adapters_off(self.policy.model):
            return self.logprobs(layouts)

    def _output(self, layout: MicroLayout) -> PolicyOutput:
        rows = Rows.of(layout.batch, self.engine.device)
        return self.engine(rows, self._vision_input(layout), self.config.loss.temperature)

    def _vision_input(self, layout: MicroLayout) -> Pixels | Features | None:
        """The policy's visual input: features if the vision tower is frozen, pixels if it is trained."""
        if not layout.images:
            return None
        if self.policy.frozen_tower is not None:
            images = [partial(self._pixels, image) for image in layout.images]
            return self.policy.frozen_tower.features(layout.batch, layout.image_keys, images, self.patcher)
        patches = self.patcher.patches(map(self._pixels, layout.images), layout.batch.frame_counts)
        return Pixels(patches.to(self.engine.device), self._tensor(layout.batch.grids))

    def _forward(self, micro: MicroBatch) -> LossResult:
        arrays = [micro.weights, micro.advantages, micro.behaviour, micro.batch.sequence]
        if micro.reference is not None:
            arrays.append(micro.reference)
        return self.loss(self._output(micro), TokenTargets(*map(self._tensor, arrays)))

    def _pixels(self, image: Any) -> np.ndarray:
        return ray.get(image, timeout=self.config.limits.step_s) if isinstance(image, ray.ObjectRef) else image

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        # np.array copies: arrays from the object store are read-only.
        return torch.from_numpy(np.array(array)).to(self.engine.device)

    def weight_buckets(
        self, version: int, frozen: bool = False, attempt: int = 0, base: int | None = None, keep: bool = False
    ) -> Iterator[Any]:
        """Yield header, data, header, data … of this rank's buckets (call with num_returns="streaming").

        The caller owns the buckets, because they are returned and not put, so they outlive this actor. attempt: rises
        from call to call. A caller that dies while it calls the ranks may not reach all of them; those that it reached
        then yield nothing and leave the gathers to the next attempt. base, keep: see SentWeights.send.
        """
        if not in_newest_attempt(attempt, self.engine.device):
            return
        parameters = named_parameters(self.engine, frozen)
        constants = as_constants(self.scales)
        yield from self.sent.send(version, base, self._buckets(parameters, self.world, constants), keep)

    def _buckets(
        self, parameters: dict[str, torch.nn.Parameter], world: int, constants: Mapping[str, np.ndarray]
    ) -> Iterator[Gathered]:
        """The buckets of this rank, of `world` that share them; see gather_buckets."""
        limit, layer = self.config.bucket_mib << 20, self.policy.family.layer
        return gather_buckets(parameters, constants, self.rank, world, limit, layer)

    def parameters(self) -> dict[str, Saved]:
        """Shape and shard key of each trained parameter, by checkpoint name."""
        return saved_parameters(self.engine, named_parameters(self.engine, frozen=False))

    def save(self, shards: str) -> None:
        """Copy out this rank's part of a checkpoint, and begin to write it into the folder `shards`, which exists."""
        copy_out(self.engine, Path(shards))
        if self.average:
            self.average.save(self.writer, Path(shards), self.rank)
        self.writer.begin()

    def saved(self, timeout_s: float) -> Written | None:
        """What this rank wrote since `save`, or None if it is still writing after `timeout_s` seconds."""
        return self.writer.outcome(timeout_s)

    def load(self, record: str, saved_ranks: int) -> None:
        """Load the checkpoint of a record. One saved by another number of ranks must have been converted before
        (learner/zero/checkpoint.convert)."""
        load_checkpoint(self.engine, Path(record), saved_ranks)
        if self.average:
            self.average.load(Path(record).with_suffix(""), saved_ranks, self.rank)

    def export(self, folder: str, dtype: str) -> None:
        """Write a Hugging Face folder that transformers and vLLM can load: weights in `dtype` with any adapter merged,
        tokenizer and processor."""
        parameters = named_parameters(self.engine, frozen=True)
        state: dict[str, torch.Tensor] = {}
        # With world = 1, rank 0 receives every bucket; the other ranks only take part in the gathers.
        for _, _, packed in self._buckets(parameters, 1, {}):
            for name, array in packed.views.items():
                tensor = torch.from_numpy(array)
                state[name] = tensor.view(torch.bfloat16) if array.dtype == np.uint16 else tensor
        if self.rank != 0:
            return
        # Converted one by one while they are written: a second whole copy might not fit.
        whole = ((name, tensor.to(getattr(torch, dtype))) for name, tensor in merge(state, self.scales).items())
        save_hugging_face(whole, Path(folder), Path(self.config.model))
