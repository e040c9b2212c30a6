"""Losses over scored tokens. One function a loss, the same inputs and outputs for all.

Guarantee: a loss is a weighted sum over tokens whose weights already hold the mean over the whole step (all ranks and
micro-batches), so that neither the number of ranks nor the split into micro-batches changes the gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class TokenTargets:
    """What a loss knows of N scored tokens beside their log-probs, float32 [N] each.

    weights: share of the token in the step's mean; they sum to 1 over the step.
    advantages: A of the token's trajectory. behaviour: log-prob under the distribution that drew it.
    """

    weights: torch.Tensor
    advantages: torch.Tensor
    behaviour: torch.Tensor


@dataclass(frozen=True)
class LossResult:
    """`loss`: scalar to minimise. `metrics`: sums over tokens with the same weights, so that they add up over ranks."""

    loss: torch.Tensor
    metrics: dict[str, float]


Loss = Callable[[torch.Tensor, TokenTargets], LossResult]


def sequence_mean_weights(lengths: np.ndarray) -> np.ndarray:
    """Weights [sum(lengths)] of a mean over sequences of token means (GRPO, arXiv 2402.03300)."""
    return np.repeat(1.0 / (len(lengths) * lengths), lengths).astype(np.float32)


def token_mean_weights(lengths: np.ndarray) -> np.ndarray:
    """Weights [sum(lengths)] of one mean over all tokens."""
    total = int(lengths.sum())
    return np.full(total, 1.0 / total, np.float32)


def cross_entropy(logprobs: torch.Tensor, targets: TokenTargets) -> LossResult:
    """Supervised warm start: -sum w log pi."""
    loss = -(targets.weights * logprobs).sum()
    return LossResult(loss, {"cross_entropy": loss.item()})


def grpo(clip: float) -> Loss:
    """-sum w min(rho A, clip(rho, 1 +- eps) A), rho = pi / mu, mu the recorded behaviour probability (domain.md 6)."""

    def loss(logprobs: torch.Tensor, targets: TokenTargets) -> LossResult:
        log_ratio = logprobs - targets.behaviour
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1 - clip, 1 + clip)
        gain = torch.minimum(ratio * targets.advantages, clipped * targets.advantages)
        with torch.no_grad():
            w = targets.weights
            metrics = {
                "ratio": (w * ratio).sum().item(),
                "clipped": (w * (gain != ratio * targets.advantages)).sum().item(),
                # k3 of mu against pi: how far the policy has moved from the one that drew the tokens.
                "behaviour_kl": (w * (ratio - 1 - log_ratio)).sum().item(),
                "entropy": -(w * logprobs).sum().item(),
            }
        return LossResult(-(targets.weights * gain).sum(), metrics)

    return loss
