"""Estimates of the divergence from a reference policy, token by token (Schulman, 2020)."""

from __future__ import annotations

import torch

from learner.algorithm import KL_BOUND


def divergence(logprobs: torch.Tensor, reference: torch.Tensor, estimator: str) -> torch.Tensor:
    """[N], differentiable: k1 = log pi - log pi_ref, k2 = k1^2 / 2, k3 = exp(-k1) + k1 - 1 with k1 in +-KL_BOUND."""
    k1 = logprobs - reference
    if estimator == "k1":
        return k1
    if estimator == "k2":
        return k1.square() / 2
    k1 = k1.clamp(-KL_BOUND, KL_BOUND)
    return (-k1).exp() + k1 - 1
