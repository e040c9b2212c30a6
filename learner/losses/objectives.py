"""The objectives, one function each, by the names that learner/algorithm.RULES declares.

u = pi / pi_prox, A the advantage, [1 - low, 1 + high] the clip. log pi_prox [N] is a constant. Results are per token;
the caller weights and sums them.
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


# (output, targets, log pi_prox, low, high) -> the gain of each token.
Objective = Callable[[PolicyOutput, TokenTargets, torch.Tensor, float, float], Gain]


def grpo(output: PolicyOutput, targets: TokenTargets, proximal: torch.Tensor, low: float, high: float) -> Gain:
    """min(u A, clip(u, 1 - low, 1 + high) A): PPO's surrogate as in GRPO (arXiv 2402.03300, eq. 3), with the two sides
    of DAPO's clip-higher (arXiv 2503.14476, eq. 8)."""
    return _surrogate((output.logprobs - proximal).exp(), targets.advantages, low, high)


def gspo(output: PolicyOutput, targets: TokenTargets, proximal: torch.Tensor, low: float, high: float) -> Gain:
    """min(s A, clip(s) A) with s = exp(mean over the sequence of log u), one ratio for all of its tokens (GSPO, arXiv
    2507.18071, eq. 5 and 7)."""
    ratio = targets.sequence_mean(output.logprobs - proximal).exp()
    return _surrogate(ratio, targets.advantages, low, high)


def cispo(output: PolicyOutput, targets: TokenTargets, proximal: torch.Tensor, low: float, high: float) -> Gain:
    """stopgrad(clip(u)) A log pi: clipping bounds the weight of a token and never removes its gradient (CISPO, arXiv
    2506.13585, eq. 4 and 5)."""
    ratio = (output.logprobs - proximal).exp().detach()
    weight = ratio.clamp(1 - low, 1 + high)
    return Gain(weight * targets.advantages * output.logprobs, weight != ratio)


def reinforce(output: PolicyOutput, targets: TokenTargets, proximal: torch.Tensor, low: float, high: float) -> Gain:
    """A log pi, without a ratio or a clip (Williams, 1992; of whole completions as in RLOO, arXiv 2402.14740)."""
    return Gain(targets.advantages * output.logprobs, torch.zeros_like(output.logprobs, dtype=torch.bool))


OBJECTIVES: dict[str, Objective] = {"grpo": grpo, "gspo": gspo, "cispo": cispo, "reinforce": reinforce}


def _surrogate(ratio: torch.Tensor, advantages: torch.Tensor, low: float, high: float) -> Gain:
    free = ratio * advantages
    value = torch.minimum(free, ratio.clamp(1 - low, 1 + high) * advantages)
    return Gain(value, value != free)
