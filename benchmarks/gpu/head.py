"""The scoring head over the 7B's vocabulary: seconds, memory, and its difference from a plain log-softmax."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmarks.gpu.setting import Setting
from learner.model.head import ScoringHead
from learner.settings import PolicyConfig

WIDTH, VOCAB, TOKENS = 3584, 152_064, 4096
SMALL_WIDTH, SMALL_VOCAB, SMALL_TOKENS = 64, 2000, 128
COMPARED = 512  # tokens whose whole logits fit


def measure(setting: Setting) -> dict[str, Any]:
    small = setting.small
    width, vocab, tokens = (SMALL_WIDTH, SMALL_VOCAB, SMALL_TOKENS) if small else (WIDTH, VOCAB, TOKENS)
    torch.manual_seed(0)
    linear = nn.Linear(width, vocab, bias=False, device=setting.device, dtype=setting.dtype)
    head = ScoringHead(linear, (), PolicyConfig().logit_chunk_mib).to(setting.device)
    hidden = torch.randn(tokens, width, device=setting.device, dtype=setting.dtype, requires_grad=True)
    targets = torch.randint(vocab, (tokens,), device=setting.device)

    def step() -> None:
        logprobs, entropies = head(hidden, targets, 1.0)
        (logprobs.sum() + entropies.sum()).backward()
        hidden.grad = linear.weight.grad = None

    peak, seconds = setting.peak_gib(step), setting.seconds(step)
    with torch.no_grad():
        part = hidden[:COMPARED]
        plain = linear(part).float().log_softmax(1).gather(1, targets[:COMPARED, None])[:, 0]
        difference = (head(part, targets[:COMPARED], 1.0)[0] - plain).abs().max()
    # Forward, the same again in the backward, and two products there.
    flops = 2 * 4 * tokens * width * vocab
    return {
        "tokens": tokens,
        "vocabulary": vocab,
        "seconds": seconds,
        "tflop_per_s": flops / seconds / 1e12,
        "peak_gib": peak,
        "largest_difference": float(difference),
    }
