"""From a config to the loss that a rank computes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from evidence.errors import BadInput
from learner.algorithm import AlgorithmConfig, own_loss
from learner.losses.importance import correction, proximal_logprobs
from learner.losses.kl import divergence
from learner.losses.objectives import Objective, cispo, grpo, gspo, reinforce
from learner.losses.tokens import Loss, LossResult, PolicyOutput, TokenTargets


def make_loss(config: AlgorithmConfig | None) -> Loss:
    """The loss of an algorithm; without one, cross-entropy. Raises BadInput for a loss of the user's that is not there.

    A loss of the user's own is called with the options beside its name, and gives the whole loss:
    def mine(output: PolicyOutput, targets: TokenTargets, options: dict[str, Any]) -> LossResult
    """
    if config is None:
        return cross_entropy
    if ":" in config.loss:
        return partial(checked, own_loss(config.loss), config)
    objectives = {
        "grpo": grpo(config.clip_low, config.clip_high),
        "gspo": gspo(config.clip_low, config.clip_high),
        "cispo": cispo(config.clip_low, config.clip_high),
        "reinforce": reinforce,
    }
    return partial(policy_loss, config, objectives[config.loss])


def checked(
    function: Callable[..., LossResult], config: AlgorithmConfig, output: PolicyOutput, targets: TokenTargets
) -> LossResult:
    """What a loss of the user's own gives. Raises BadInput unless it is a LossResult that can be differentiated."""
    result = function(output, targets, options=config.options)
    if not isinstance(result, LossResult) or result.loss.shape != () or not result.loss.requires_grad:
        raise BadInput(
            f"loss = {config.loss}: it returned a {type(result).__name__}; it has to be a LossResult "
            "(learner/losses/tokens.py) with a loss of no dimensions that depends on output.logprobs"
        )
    return result


def cross_entropy(output: PolicyOutput, targets: TokenTargets) -> LossResult:
    """Supervised: -sum w log pi, over the tokens that are scored, which a warm start's are the completions' only."""
    loss = -(targets.weights * output.logprobs).sum()
    return LossResult(loss, {"cross_entropy": loss.item()})


def policy_loss(
    config: AlgorithmConfig, objective: Objective, output: PolicyOutput, targets: TokenTargets
) -> LossResult:
    """-sum w (c J - kl rho k + entropy H): J the objective, c the correction, rho = pi / mu of the token, a constant.

    Where the config has a price on divergence, in the loss or in the reward, `targets.reference` has to be there; with
    an entropy bonus, `output.entropy`. Raises ValueError where it is not.
    """
    proximal = proximal_logprobs(output.logprobs, targets.behaviour, config.proximal)
    gain = objective(output, targets, proximal)
    factor = correction(proximal - targets.behaviour, targets, config.correction)
    value = factor * gain.value
    log_ratio = output.logprobs.detach() - targets.behaviour
    ratio = log_ratio.exp()
    watched = {
        "weight": torch.ones_like(ratio),
        "ratio": ratio,
        "clipped": gain.clipped,
        # k3 of mu against pi: how far the policy has moved from the one that drew the tokens.
        "behaviour_kl": ratio - 1 - log_ratio,
        # Of the tokens drawn, an estimate, where the distributions' own was not computed.
        "entropy": -output.logprobs if output.entropy is None else output.entropy,
    }
    if config.correction.mode != "none":
        watched["left_out"] = factor == 0
    if config.correction.mode == "truncate":
        watched["truncated"] = factor == config.correction.high
    if targets.reference is not None:
        price = divergence(output.logprobs, targets.reference, config.kl.estimator)
        watched["kl"] = price
        if config.kl.coefficient and config.kl.where == "loss":
            value = value - config.kl.coefficient * ratio * price
    elif config.kl.coefficient:
        raise ValueError("algorithm.kl.coefficient: there are no reference log-probs to measure the divergence from")
    if config.entropy:
        if output.entropy is None:
            raise ValueError("algorithm.entropy: the policy did not compute its entropy")
        value = value + config.entropy * output.entropy
    return LossResult(-(targets.weights * value).sum(), _sums(targets.weights, watched))


@torch.no_grad()
def _sums(weights: torch.Tensor, watched: dict[str, torch.Tensor]) -> dict[str, float]:
    """The weighted sum of each, [N], brought from the device at once."""
    sums = torch.stack([(weights * values).sum() for values in watched.values()])
    return dict(zip(watched, sums.tolist()))
