"""Probability ratios from differences of log-probs.

Guarantee: a ratio and its gradient are finite for all finite log-probs. Without the bound, exp overflows in float32 at
a log-ratio of 88.7, and the gradient of a clipped ratio, 0 times infinity, is NaN. A log-prob that is infinite or NaN
is broken data, since no token of probability 0 is ever drawn: the ratio shows it, and the step is skipped.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from learner.algorithm import LOG_RATIO_BOUND

# Bounds of the bins in which a step's ratios are counted: narrow around 1, where on-policy ratios lie. What is beyond
# the last one counts in the last bin.
EDGES = (
    *(0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999),
    *(1.001, 1.005, 1.01, 1.02, 1.05, 1.1, 1.2, 1.3, 1.5, 2.0, 10.0),
)


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


def counts(ratios: torch.Tensor) -> torch.Tensor:
    """int64 [len(EDGES) - 1]: how many of the ratios [N] are in each bin."""
    inner = torch.tensor(EDGES[1:-1], dtype=ratios.dtype, device=ratios.device)
    return torch.bincount(torch.bucketize(ratios, inner, right=True), minlength=len(EDGES) - 1)
