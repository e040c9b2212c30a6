"""The objectives, one function each, by the names that learner/algorithm.RULES declares.

u = pi / pi_prox, A the advantage, [1 - low, 1 + high] the clip. log pi_prox [N] is a constant. Ratios are bounded
(learner/losses/ratios). Results are per token; the caller weights and sums them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from learner.losses.ratios import Ratio, bounded_ratio
from learner.losses.tokens import PolicyOutput, TokenTargets


@dataclass(frozen=True)
class Gain:
    """`value`: [N], to maximise. `clipped`: bool [N], where clipping changed it. `bounded`: bool [N], where the
    bound on its log-ratio did."""

    value: torch.Tensor
    clipped: torch.Tensor
    bounded: torch.Tensor


# (output, targets, log pi_prox, low, high) -> the gain of each token.
Objective = Callable[[PolicyOutput, TokenTargets, torch.Tensor, float, float], Gain]


def grpo(output: PolicyOutput, targets: TokenTargets, proximal: torch.Tensor, low: float, high: float) -> Gain:
    """min(u A, clip(u, 1 - low, 1 + high) A): PPO's surrogate as in GRPO (arXiv 2402.03300, eq. 3), with the two sides
    of DAPO's clip-higher (arXiv 2503.14476, eq. 8)."""
    return _surrogate(bounded_ratio(output.logprobs - proximal), targets.advantages, low, high)


def gspo(output: PolicyOutput, targets: TokenTargets, proximal: torch.Tensor, low: float, high: float) -> Gain:
    """min(s A, clip(s) A) with s = exp(mean over the sequence of log u), one ratio for all of its tokens (GSPO, arXiv
    2507.18071, eq. 5 and 7)."""
    log_ratio = targets.sequence_mean(output.logprobs - proximal)
    return _surrogate(bounded_ratio(log_ratio), targets.advantages, low, high)


def cispo(output: PolicyOutput, targets: TokenTargets, proximal: torch.Tensor, low: float, high: float) -> Gain:
    """stopgrad(clip(u)) A log pi: clipping bounds the weight of a token and never removes its gradient (CISPO, arXiv
    2506.13585, eq. 4 and 5)."""
    ratio = bounded_ratio(output.logprobs.detach() - proximal)
    weight = ratio.value.clamp(1 - low, 1 + high)
    return Gain(weight * targets.advantages * output.logprobs, weight != ratio.value, ratio.bounded)


def reinforce(output: PolicyOutput, targets: TokenTargets, proximal: torch.Tensor, low: float, high: float) -> Gain:
    """A log pi, without a ratio or a clip (Williams, 1992; of whole completions as in RLOO, arXiv 2402.14740)."""
    nowhere = torch.zeros_like(output.logprobs, dtype=torch.bool)
    return Gain(targets.advantages * output.logprobs, nowhere, nowhere)


OBJECTIVES: dict[str, Objective] = {"grpo": grpo, "gspo": gspo, "cispo": cispo, "reinforce": reinforce}


def _surrogate(ratio: Ratio, advantages: torch.Tensor, low: float, high: float) -> Gain:
    free = ratio.value * advantages
    value = torch.minimum(free, ratio.value.clamp(1 - low, 1 + high) * advantages)
    return Gain(value, value != free, ratio.bounded)
