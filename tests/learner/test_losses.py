"""Losses and advantages against slow, obvious float64 references."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from learner.advantages import group_advantages
from learner.losses import TokenTargets, cross_entropy, grpo, sequence_mean_weights, token_mean_weights


def targets(lengths: list[int], advantages: list[float], behaviour: list[float]) -> TokenTargets:
    per_token = np.repeat(np.array(advantages, np.float64), lengths)
    return TokenTargets(
        weights=torch.from_numpy(sequence_mean_weights(np.array(lengths))).double(),
        advantages=torch.from_numpy(per_token),
        behaviour=torch.tensor(behaviour, dtype=torch.float64),
    )


def test_grpo_is_the_mean_over_sequences_of_token_means() -> None:
    lengths, advantages = [2, 3], [1.0, -2.0]
    behaviour = [-1.0, -2.0, -0.5, -1.5, -0.7]
    logprobs = torch.tensor([-0.9, -1.0, -0.4, -3.0, -0.2], dtype=torch.float64, requires_grad=True)
    result = grpo(0.2)(logprobs, targets(lengths, advantages, behaviour))

    def token(pi: float, mu: float, a: float) -> float:
        rho = math.exp(pi - mu)
        return min(rho * a, min(max(rho, 0.8), 1.2) * a)

    by_token = [token(p, m, a) for p, m, a in zip(logprobs.tolist(), behaviour, [1, 1, -2, -2, -2])]
    expected = -(sum(by_token[:2]) / 2 + sum(by_token[2:]) / 3) / 2
    assert result.loss.item() == pytest.approx(expected, abs=1e-6)

    (gradient,) = torch.autograd.grad(result.loss, logprobs)
    # Token 1 is above 1.2 with A > 0, token 3 below .8 with A < 0: both clipped. The others push -rho A w.
    ratios = [math.exp(p - m) for p, m in zip(logprobs.tolist(), behaviour)]
    wanted = [-ratios[0] / 4, 0, 2 * ratios[2] / 6, 0, 2 * ratios[4] / 6]
    np.testing.assert_allclose(gradient.numpy(), wanted, atol=1e-6)
    assert result.metrics["clipped"] == pytest.approx(1 / 4 + 1 / 6, abs=1e-6)


def test_splitting_a_step_does_not_change_its_loss() -> None:
    lengths = [2, 3, 1]
    everything = targets(lengths, [0.5, -1.0, 2.0], [-1.0] * 6)
    logprobs = torch.linspace(-2, -0.5, 6, dtype=torch.float64)
    whole = grpo(0.2)(logprobs, everything).loss
    parts = [
        grpo(0.2)(
            logprobs[s], TokenTargets(*(getattr(everything, f)[s] for f in ("weights", "advantages", "behaviour")))
        ).loss
        for s in (slice(0, 2), slice(2, 6))
    ]
    assert whole.item() == pytest.approx(sum(parts).item())


def test_cross_entropy_is_one_mean_over_all_tokens() -> None:
    logprobs = torch.tensor([-1.0, -2.0, -6.0], dtype=torch.float64)
    weights = torch.from_numpy(token_mean_weights(np.array([1, 2]))).double()
    assert cross_entropy(logprobs, TokenTargets(weights, weights, weights)).loss.item() == pytest.approx(3.0, abs=1e-6)


def test_advantages_are_centred_inside_the_group() -> None:
    rewards = np.array([1.0, 2.0, 3.0], np.float32)
    np.testing.assert_allclose(group_advantages(rewards, divide_by_std=False), [-1, 0, 1], atol=1e-6)
    np.testing.assert_allclose(group_advantages(10 * rewards, divide_by_std=True), [-1, 0, 1], atol=1e-4)
    assert (group_advantages(np.full(4, 0.7, np.float32), divide_by_std=True) == 0).all(), "equal rewards say nothing"
