"""Estimates of the divergence from a reference policy, per token (Schulman, 2020)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from learner.algorithm import KL_BOUND


def _k3(k1: torch.Tensor) -> torch.Tensor:
    k1 = k1.clamp(-KL_BOUND, KL_BOUND)
    return (-k1).exp() + k1 - 1


# By their names in learner/algorithm.ESTIMATORS: [N] from k1 = log pi - log pi_ref, [N].
ESTIMATES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "k1": lambda k1: k1,
    "k2": lambda k1: k1.square() / 2,
    "k3": _k3,
}


def divergence(logprobs: torch.Tensor, reference: torch.Tensor, estimator: str) -> torch.Tensor:
    """[N], differentiable: k1 = log pi - log pi_ref, k2 = k1^2 / 2, k3 = exp(-k1) + k1 - 1 with k1 in +-KL_BOUND."""
    return ESTIMATES[estimator](logprobs - reference)
