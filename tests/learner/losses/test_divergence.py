"""The KL penalty: its estimators against numbers by hand, their expected gradients, and the penalty in the reward."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from learner.advantages import kl_penalised
from learner.algorithm import KL
from learner.losses.kl import divergence

LOGITS = torch.tensor([0.3, -1.0, 0.7], dtype=torch.float64)
REFERENCE = torch.tensor([-0.2, 0.4, 0.1], dtype=torch.float64).log_softmax(0)
BEHAVIOUR = torch.tensor([1.0, 0.5, -0.5], dtype=torch.float64).log_softmax(0)


def test_estimators_of_one_token() -> None:
    logprobs, reference = torch.tensor([-1.0, -1.0]), torch.tensor([-1.5, -41.0])
    assert divergence(logprobs, reference, "k1").tolist() == pytest.approx([0.5, 40])
    assert divergence(logprobs, reference, "k2").tolist() == pytest.approx([0.125, 800])
    assert divergence(logprobs, reference, "k3").tolist() == pytest.approx([np.exp(-0.5) - 0.5, 9 + np.exp(-10)])
    assert divergence(reference, logprobs, "k3").tolist()[1] == pytest.approx(np.exp(10) - 11), "not exp(40)"


def expected_gradient(estimator: str, drawn_by: torch.Tensor) -> np.ndarray:
    """Gradient over the logits of a token's expected estimate, the token drawn by `drawn_by` and weighted by
    stopgrad(rho)."""
    logits = LOGITS.clone().requires_grad_()
    logprobs = logits.log_softmax(0)
    rho = (logprobs.detach() - drawn_by).exp()
    (drawn_by.exp() * rho * divergence(logprobs, REFERENCE, estimator)).sum().backward()
    return logits.grad.numpy()


def test_in_a_loss_k1_has_no_expected_gradient_and_k2_that_of_the_divergence() -> None:
    logits = LOGITS.clone().requires_grad_()
    logprobs = logits.log_softmax(0)
    (logprobs.exp() * (logprobs - REFERENCE)).sum().backward()
    for drawn_by in (LOGITS.log_softmax(0), BEHAVIOUR):  # on and off policy
        np.testing.assert_allclose(expected_gradient("k1", drawn_by), 0, atol=1e-12)
        np.testing.assert_allclose(expected_gradient("k2", drawn_by), logits.grad, rtol=1e-9)
    # k3 has the gradient of KL(ref || pi), which is the same near the reference: p - q over the logits.
    wanted = (LOGITS.softmax(0) - REFERENCE.exp()).numpy()
    np.testing.assert_allclose(expected_gradient("k3", BEHAVIOUR), wanted, rtol=1e-9)


def test_the_penalty_in_the_reward() -> None:
    rewards = np.array([1.0, 0.0], np.float32)
    behaviour = [np.array([-1.0, -2.0], np.float32), np.array([-1.0], np.float32)]
    reference = [np.array([-1.5, -1.0], np.float32), np.array([-1.0], np.float32)]

    def paid(estimator: str, coefficient: float = 0.1) -> list[float]:
        return kl_penalised(rewards, behaviour, reference, KL(coefficient, estimator, "reward")).tolist()

    assert paid("k1") == pytest.approx([1 - 0.1 * (0.5 - 1.0), 0])
    assert paid("k2") == pytest.approx([1 - 0.1 * (0.125 + 0.5), 0])
    assert paid("k3") == pytest.approx([1 - 0.1 * (np.exp(-0.5) - 0.5 + np.exp(1.0) - 2), 0])
    assert paid("k3", 0.0) == rewards.tolist()
    wide = kl_penalised(rewards.astype(np.float64), behaviour, reference, KL(0.1, "k1", "reward"))
    assert wide.dtype == np.float32
    with pytest.raises(ValueError, match="zip"):
        kl_penalised(rewards, behaviour, reference[:1], KL(0.1, "k1", "reward"))


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_reward_and_loss_use_the_same_estimates(estimator: str) -> None:
    rng = np.random.default_rng(0)
    policy, reference = rng.normal(-2, 8, 50).astype(np.float32), rng.normal(-2, 8, 50).astype(np.float32)
    in_reward = -kl_penalised(np.zeros(1, np.float32), [policy], [reference], KL(1.0, estimator, "reward"))[0]
    in_loss = divergence(*(torch.from_numpy(a).double() for a in (policy, reference)), estimator).sum().item()
    assert in_reward == pytest.approx(in_loss, rel=1e-6)
