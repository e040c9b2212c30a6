"""Micro-batches of text, images and videos, and their log-probs and gradients in plain torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForImageTextToText

from learner.model.patches import Patcher
from learner.model.policy import Policy, Rows
from learner.model.vision import Pixels
from learner.packing.shared_prefix import make_unit
from learner.packing.step import MicroBatch, StepTargets, lay_out, with_targets
from learner.settings import PackingConfig, PolicyConfig
from rollout.prompt import ChatEncoder, NativeVideo


def micro_batch(encoder: ChatEncoder, kind: str, seed: int) -> MicroBatch:
    """Three completions of one prompt. kind: text, image (two images) or video. Equal seeds give equal frames."""
    rng, side = np.random.default_rng(seed), 2 * encoder.patch * encoder.merge
    count = {"text": 0, "image": 2, "video": 4}[kind]
    frames = rng.integers(0, 255, (count, side, side, 3), dtype=np.uint8)
    shown: list[Any] = [(side, side)] * count
    if kind == "video":
        shown = [NativeVideo((side, side), tuple(range(count)))]
    prompt = encoder.encode([*shown, f"{kind} {seed}?"])
    completions = [rng.integers(0, 200, n).astype(np.int32) for n in (4, 7, 5)]
    unit = make_unit([prompt] * 3, completions, [(f"frames {seed}", frames)])
    targets = StepTargets(
        weights=np.full(16, 0.01, np.float32),
        advantages=rng.normal(size=16).astype(np.float32),
        behaviour=np.full(16, -6.2, np.float32),
    )
    ((micro,),) = with_targets(lay_out([unit], 1, PackingConfig()), targets)
    return micro


def plain_policy(folder: Path, encoder: ChatEncoder, config: PolicyConfig) -> Policy:
    return Policy(AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32), encoder.banned_ids, config)


def plain_logprobs(policy: Policy, patcher: Patcher, micro: MicroBatch) -> torch.Tensor:
    """Log-probs of the micro-batch, in one process with the model's own tower."""
    b, shown = micro.batch, None
    if micro.images:
        shown = Pixels(patcher.patches(micro.images, b.frame_counts), torch.from_numpy(b.grids))
    return policy(Rows.of(b), shown, 1.0).logprobs


def plain_gradients(policy: Policy, patcher: Patcher, parts: Sequence[Sequence[MicroBatch]]) -> float:
    """The gradient norm of a GRPO step over the micro-batches of all ranks. The gradients stay in the parameters."""
    for micro in (m for rank in parts for m in rank):
        ratio = (plain_logprobs(policy, patcher, micro) - torch.from_numpy(micro.behaviour)).exp()
        advantage = torch.from_numpy(micro.advantages)
        gain = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
        (-(torch.from_numpy(micro.weights) * gain).sum()).backward()
    gradients = [p.grad for p in policy.parameters() if p.grad is not None]
    return float(torch.stack([g.norm() for g in gradients]).norm())
