"""The proximal policy, and what is made of pi_prox / mu: how tokens that another policy drew are made to count.

All of it is constant for the gradient.
"""

from __future__ import annotations

import torch

from learner.algorithm import Correction, Proximal
from learner.losses.tokens import TokenTargets


def proximal_logprobs(logprobs: torch.Tensor, behaviour: torch.Tensor, config: Proximal) -> torch.Tensor:
    """log pi_prox, [N].

    `recomputed` is the policy as the step begins (decoupled PPO, arXiv 2110.00641, 2505.24298). Each batch is trained
    by one optimizer step here, so until that step's end the weights are those: stopgrad of this very forward is exact,
    and no pass of its own is needed. `interpolated` is A-3PO's approximation (arXiv 2512.06547), which takes
    1 / staleness of the token for `alpha`; here alpha is one number.
    """
    if config.policy == "behaviour":
        return behaviour
    current = logprobs.detach()
    return current if config.policy == "recomputed" else torch.lerp(current, behaviour, config.alpha)


def correction(log_weight: torch.Tensor, targets: TokenTargets, config: Correction) -> torch.Tensor:
    """[N], the factor of each token's gain; `log_weight`: log(pi_prox / mu), [N].

    A token that is left out keeps its place in the step's mean, whose weights were given before it was known.
    `plain`: decoupled PPO. `truncate`: TIS (Yao et al. 2025). `mask`: IcePop (arXiv 2510.18855) for tokens, Seq-MIS
    (Liu et al. 2025) for sequences. `reject`: by the geometric mean as in verl and prime-rl.
    """
    if config.mode == "none":
        return torch.ones_like(log_weight)
    whole = config.level == "sequence"
    if config.mode == "reject":
        judged = targets.sequence_mean(log_weight) if whole else log_weight
        outside = ~_within(judged.exp(), config)
        return (targets.sequence_sum(outside.to(log_weight.dtype)) == 0).to(log_weight.dtype)
    weight = (targets.sequence_sum(log_weight) if whole else log_weight).exp()
    if config.mode == "truncate":
        return weight.clamp(max=config.high)
    if config.mode == "mask":
        return torch.where(_within(weight, config), weight, 0.0)
    return weight


def _within(ratio: torch.Tensor, config: Correction) -> torch.Tensor:
    return (ratio >= config.low) & (ratio <= config.high)
