"""Probability ratios from differences of log-probs.

Guarantee: a ratio and its gradient are finite for all finite log-probs. Without the bound, exp overflows in float32 at
a log-ratio of 88.7, and the gradient of a clipped ratio, 0 times infinity, is NaN. A log-prob that is infinite or NaN
is broken data, since no token of probability 0 is ever drawn: the ratio shows it, and the step is skipped.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from learner.algorithm import LOG_RATIO_BOUND


@dataclass(frozen=True)
class Ratio:
    """`value`: [N]. `bounded`: bool [N], where the log-ratio was beyond the bound."""

    value: torch.Tensor
    bounded: torch.Tensor


def bounded_ratio(log_ratio: torch.Tensor) -> Ratio:
    """exp of log_ratio [N] within +-LOG_RATIO_BOUND; beyond it the value is constant, so its gradient is 0."""
    bounded = log_ratio.detach().abs() > LOG_RATIO_BOUND
    within = log_ratio.clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)
    return Ratio(torch.where(log_ratio.isinf(), log_ratio, within).exp(), bounded)
