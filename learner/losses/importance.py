"""The proximal policy, and the corrections for tokens that another policy drew, made of pi_prox / mu.

All of it is constant for the gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from learner.algorithm import Correction, Proximal
from learner.losses.ratios import Ratio, bounded_ratio
from learner.losses.tokens import TokenTargets


def proximal_logprobs(logprobs: torch.Tensor, behaviour: torch.Tensor, config: Proximal) -> torch.Tensor:
    """log pi_prox, [N].

    `recomputed` is the policy at the start of the step (decoupled PPO, arXiv 2110.00641, 2505.24298). Each batch is
    trained by one optimizer step here, so the weights do not change until that step ends: the detached output of this
    forward is exact, and no separate pass is needed. `interpolated` is A-3PO's approximation (arXiv 2512.06547), which
    uses 1 / staleness of the token for `alpha`; here alpha is one number.
    """
    if config.policy == "behaviour":
        return behaviour
    current = logprobs.detach()
    return current if config.policy == "recomputed" else torch.lerp(current, behaviour, config.alpha)


def correction(log_weight: torch.Tensor, targets: TokenTargets, config: Correction) -> Ratio:
    """The factor of each token's gain, from `log_weight` = log(pi_prox / mu), [N].

    A token with factor 0 keeps its share of the step's mean, because token weights are computed beforehand.
    """
    return CORRECTIONS[config.mode](log_weight, targets, config)


def _none(log_weight: torch.Tensor, targets: TokenTargets, config: Correction) -> Ratio:
    return Ratio(torch.ones_like(log_weight), torch.zeros_like(log_weight, dtype=torch.bool))


def _plain(log_weight: torch.Tensor, targets: TokenTargets, config: Correction) -> Ratio:
    """Decoupled PPO."""
    return bounded_ratio(targets.sequence_sum(log_weight) if config.level == "sequence" else log_weight)


def _truncate(log_weight: torch.Tensor, targets: TokenTargets, config: Correction) -> Ratio:
    """TIS (Yao et al. 2025)."""
    weight = _plain(log_weight, targets, config)
    return Ratio(weight.value.clamp(max=config.high), weight.bounded)


def _mask(log_weight: torch.Tensor, targets: TokenTargets, config: Correction) -> Ratio:
    """IcePop (arXiv 2510.18855) for tokens, Seq-MIS (Liu et al. 2025) for sequences."""
    weight = _plain(log_weight, targets, config)
    return Ratio(torch.where(_within(weight.value, config), weight.value, 0.0), weight.bounded)


def _reject(log_weight: torch.Tensor, targets: TokenTargets, config: Correction) -> Ratio:
    """Whole sequences, by any of their tokens or by the geometric mean as in verl and prime-rl."""
    tested = bounded_ratio(targets.sequence_mean(log_weight) if config.level == "sequence" else log_weight)
    outside = (~_within(tested.value, config)).to(log_weight.dtype)
    return Ratio((targets.sequence_sum(outside) == 0).to(log_weight.dtype), tested.bounded)


# By their names in learner/algorithm.MODES.
CORRECTIONS: dict[str, Callable[[torch.Tensor, TokenTargets, Correction], Ratio]] = {
    "none": _none,
    "plain": _plain,
    "truncate": _truncate,
    "mask": _mask,
    "reject": _reject,
}


def _within(ratio: torch.Tensor, config: Correction) -> torch.Tensor:
    return (ratio >= config.low) & (ratio <= config.high)
