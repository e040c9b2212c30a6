"""Models of published shapes with random weights, and packed rows of random tokens, as the learner gets them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from benchmarks.gpu.setting import Setting
from learner.aggregation import token_weights
from learner.algorithm import AlgorithmConfig
from learner.losses import TokenTargets, make_loss
from learner.model.attention import FLEX, PACKED
from learner.model.policy import Policy, Rows
from learner.packing.shared_prefix import Branch, Unit
from learner.packing.step import MicroBatch, StepTargets, lay_out, with_targets
from learner.settings import PackingConfig, PolicyConfig

SHAPES = Path(__file__).parents[2] / "configs" / "models"
NAMES = {"3b": "Qwen2.5-VL-3B-Instruct", "7b": "Qwen2.5-VL-7B-Instruct"}
SMALL = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 2, "vocab_size": 1000}
ROPE = {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6}
BRANCHES, COMPLETION = 8, 512  # of a group; the rest of a row is prompt


def make_policy(name: str, setting: Setting, layers: int | None = None, checkpointing: bool = False) -> Policy:
    """The policy of a shape with so many layers, or all of them. Its tower has one layer: rows hold no images."""
    content = json.loads((SHAPES / f"{NAMES[name]}.json").read_text(encoding="utf-8"))
    kind, tied = content.pop("model_type"), content.pop("tie_word_embeddings")
    vision = content.pop("vision_config") | {"depth": 1, "fullatt_block_indexes": [0]}
    text = content | {"rope_parameters": ROPE, "num_hidden_layers": layers or content["num_hidden_layers"]}
    if setting.small:
        text |= SMALL | {"num_key_value_heads": 1, "num_hidden_layers": min(2, layers or 2)}
        vision |= {"hidden_size": 64, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": SMALL["hidden_size"]}
    config = AutoConfig.for_model(kind, text_config=text, vision_config=vision, tie_word_embeddings=tied)
    torch.manual_seed(0)
    with setting.device:
        model = AutoModelForImageTextToText.from_config(config, dtype=setting.dtype)
    attention = FLEX if setting.on_gpu else PACKED
    return Policy(model, (), PolicyConfig(gradient_checkpointing=checkpointing), attention).to(setting.device)


def make_row(tokens: int, groups: int = 1, branches: int = BRANCHES, completion: int = COMPLETION) -> MicroBatch:
    """One packed row of exactly `tokens` tokens: `groups` prompts, each shared by so many completions."""
    rng = np.random.default_rng(tokens)
    last = completion - 1  # the last token of a completion is predicted, and not run
    prompts = [len(part) - branches * last for part in np.array_split(range(tokens), groups)]
    return with_random_targets(rng, [make_unit(rng, prompt, branches, completion) for prompt in prompts])


def make_unit(rng: np.random.Generator, prompt: int, branches: int, completion: int, vocab: int = 1000) -> Unit:
    """A prompt of random tokens, shared by so many completions."""

    def tokens(count: int) -> np.ndarray:
        return rng.integers(0, vocab, count).astype(np.int32)

    def positions(start: int, count: int) -> np.ndarray:
        return np.broadcast_to(np.arange(start, start + count, dtype=np.int32), (3, count))

    targets = [tokens(completion) for _ in range(branches)]
    rest = tuple(Branch(t[:-1], positions(prompt, completion - 1), t) for t in targets)
    return Unit(tokens(prompt), positions(0, prompt), (), rest)


def with_random_targets(rng: np.random.Generator, units: Sequence[Unit]) -> MicroBatch:
    """One row of all `units`, with what the GRPO loss takes for their completions."""
    lengths = np.array([len(branch.targets) for unit in units for branch in unit.branches])
    targets = StepTargets(
        weights=token_weights(lengths, "sequence_mean"),
        advantages=np.repeat(rng.normal(size=len(lengths)), lengths).astype(np.float32),
        behaviour=rng.normal(-np.log(SMALL["vocab_size"]), 0.1, lengths.sum()).astype(np.float32),
    )
    tokens = sum(len(unit.token_ids) + sum(map(len, unit.branches)) for unit in units)
    ((micro,),) = with_targets(lay_out(units, 1, PackingConfig("prefix", tokens)), targets)
    return micro


@dataclass(frozen=True)
class Work:
    """A forward and backward of the GRPO loss over one row."""

    policy: Policy
    rows: Rows
    targets: TokenTargets

    @classmethod
    def of(cls, policy: Policy, micro: MicroBatch, device: torch.device) -> Work:
        return cls(policy, Rows.of(micro.batch, device), targets_of(micro, device))

    def forward(self) -> torch.Tensor:
        """The loss."""
        return make_loss(AlgorithmConfig())(self.policy(self.rows, None, 1.0), self.targets).loss

    def step(self) -> None:
        """Forward and backward; the gradients are dropped."""
        self.forward().backward()
        self.policy.zero_grad(set_to_none=True)


def targets_of(micro: MicroBatch, device: torch.device) -> TokenTargets:
    """The inputs of the loss."""
    arrays = (micro.weights, micro.advantages, micro.behaviour, micro.batch.sequence)
    return TokenTargets(*(torch.from_numpy(array).to(device) for array in arrays))


def text_config(policy: Policy) -> Any:
    """The config of the language model."""
    return policy.model.config.get_text_config()
