"""The objectives: one function each, of the policy's output, the targets and log pi_prox [N], which is a constant.

u = pi / pi_prox, A the advantage. What is returned is per token; weighing and summing it is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from learner.losses.tokens import PolicyOutput, TokenTargets


@dataclass(frozen=True)
class Gain:
    """`value`: [N], to maximise. `clipped`: bool [N], where clipping changed it."""

    value: torch.Tensor
    clipped: torch.Tensor


Objective = Callable[[PolicyOutput, TokenTargets, torch.Tensor], Gain]


def grpo(low: float, high: float) -> Objective:
    """min(u A, clip(u, 1 - low, 1 + high) A): PPO's surrogate as in GRPO (arXiv 2402.03300, eq. 3), with the two sides
    of DAPO's clip-higher (arXiv 2503.14476, eq. 8)."""

    def objective(output: PolicyOutput, targets: TokenTargets, proximal: torch.Tensor) -> Gain:
        return _surrogate((output.logprobs - proximal).exp(), targets.advantages, low, high)

    return objective


def gspo(low: float, high: float) -> Objective:
    """min(s A, clip(s) A) with s = exp(mean over the sequence of log u), one ratio for all of its tokens (GSPO, arXiv
    2507.18071, eq. 5 and 7)."""

    def objective(output: PolicyOutput, targets: TokenTargets, proximal: torch.Tensor) -> Gain:
        ratio = targets.sequence_mean(output.logprobs - proximal).exp()
        return _surrogate(ratio, targets.advantages, low, high)

    return objective


def cispo(low: float, high: float) -> Objective:
    """stopgrad(clip(u)) A log pi: no token loses its gradient, none has too much of it (CISPO, arXiv 2506.13585, eq. 4
    and 5)."""

    def objective(output: PolicyOutput, targets: TokenTargets, proximal: torch.Tensor) -> Gain:
        ratio = (output.logprobs - proximal).exp().detach()
        weight = ratio.clamp(1 - low, 1 + high)
        return Gain(weight * targets.advantages * output.logprobs, weight != ratio)

    return objective


def reinforce(output: PolicyOutput, targets: TokenTargets, proximal: torch.Tensor) -> Gain:
    """A log pi (Williams, 1992; of whole completions as in RLOO, arXiv 2402.14740)."""
    return Gain(targets.advantages * output.logprobs, torch.zeros_like(output.logprobs, dtype=torch.bool))


def _surrogate(ratio: torch.Tensor, advantages: torch.Tensor, low: float, high: float) -> Gain:
    free = ratio * advantages
    value = torch.minimum(free, ratio.clamp(1 - low, 1 + high) * advantages)
    return Gain(value, value != free)
