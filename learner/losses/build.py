"""Builds the loss that a rank computes from its config."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from evidence.errors import BadInput
from learner.algorithm import AlgorithmConfig, own_loss
from learner.losses.importance import correction, proximal_logprobs
from learner.losses.kl import divergence
from learner.losses.objectives import OBJECTIVES
from learner.losses.ratios import bounded_ratio, counts
from learner.losses.tokens import Loss, LossResult, PolicyOutput, TokenTargets


def make_loss(config: AlgorithmConfig | None) -> Loss:
    """The loss of an algorithm, or cross-entropy without one. Raises BadInput if a user's loss cannot be loaded.

    A user's own loss gets the options given in the config and returns the whole loss:
    def mine(output: PolicyOutput, targets: TokenTargets, options: dict[str, Any]) -> LossResult
    """
    if config is None:
        return cross_entropy
    if ":" in config.loss:
        return partial(checked, own_loss(config.loss), config)
    return partial(policy_loss, config)


def checked(
    function: Callable[..., LossResult], config: AlgorithmConfig, output: PolicyOutput, targets: TokenTargets
) -> LossResult:
    """Run a user's own loss. Raises BadInput unless it returns a LossResult that can be differentiated."""
    result = function(output, targets, options=config.options)
    if not isinstance(result, LossResult) or result.loss.shape != () or not result.loss.requires_grad:
        raise BadInput(
            f"loss = {config.loss}: returned a {type(result).__name__}; must return a LossResult "
            "(learner/losses/tokens.py) with a scalar loss that depends on output.logprobs"
        )
    return result


def cross_entropy(output: PolicyOutput, targets: TokenTargets) -> LossResult:
    """Supervised loss: -sum w log pi over the scored tokens, which in a warm start are those of the completions."""
    loss = -(targets.weights * output.logprobs).sum()
    return LossResult(loss, {"cross_entropy": loss.item()})


def policy_loss(config: AlgorithmConfig, output: PolicyOutput, targets: TokenTargets) -> LossResult:
    """-sum w (c J - kl rho k + entropy H): J the objective, c the correction, rho = pi / mu of the token, a constant.

    A KL penalty, in the loss or in the reward, needs `targets.reference`; an entropy bonus needs `output.entropy`.
    Raises ValueError if they are missing.
    """
    proximal = proximal_logprobs(output.logprobs, targets.behaviour, config.proximal)
    gain = OBJECTIVES[config.loss](output, targets, proximal, config.clip_low, config.clip_high)
    factor = correction(proximal - targets.behaviour, targets, config.correction)
    value = factor.value * gain.value
    log_ratio = output.logprobs.detach() - targets.behaviour
    ratio = bounded_ratio(log_ratio)
    observed = {
        "weight": torch.ones_like(ratio.value),
        "ratio": ratio.value,
        "ratio_squared": ratio.value.square(),
        "clipped": gain.clipped,
        "bounded": ratio.bounded | gain.bounded | factor.bounded,
        # k3 estimate of KL(mu, pi): how far the policy has moved from the one that drew the tokens.
        "behaviour_kl": ratio.value - 1 - log_ratio,
        # Without the entropy of the distributions, an estimate from the drawn tokens.
        "entropy": -output.logprobs if output.entropy is None else output.entropy,
    }
    if config.correction.mode != "none":
        observed["left_out"] = factor.value == 0
    if config.correction.mode == "truncate":
        observed["truncated"] = factor.value == config.correction.high
    if targets.reference is not None:
        penalty = divergence(output.logprobs, targets.reference, config.kl.estimator)
        observed["kl"] = penalty
        if config.kl.coefficient and config.kl.where == "loss":
            value = value - config.kl.coefficient * ratio.value * penalty
    elif config.kl.coefficient:
        raise ValueError("algorithm.kl.coefficient: the targets have no reference log-probs")
    if config.entropy:
        if output.entropy is None:
            raise ValueError("algorithm.entropy: the policy did not compute its entropy")
        value = value + config.entropy * output.entropy
    return LossResult(-(targets.weights * value).sum(), *_sums(targets.weights, observed, ratio.value))


@torch.no_grad()
def _sums(
    weights: torch.Tensor, observed: dict[str, torch.Tensor], ratios: torch.Tensor
) -> tuple[dict[str, float], np.ndarray]:
    """The weighted sum of each tensor [N], and the counts of the ratios, copied from the device in one transfer."""
    sums = torch.stack([(weights * values).sum() for values in observed.values()])
    numbers = torch.cat([sums, counts(ratios).to(sums)]).tolist()
    return dict(zip(observed, numbers)), np.array(numbers[len(observed) :])
