"""Slow reference of the losses: Python floats, loops over completions and their tokens, from the papers' formulas.

Factors that are constant for the gradient use `frozen`, so that central differences of `loss` over `pi` are its
gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from learner.algorithm import AlgorithmConfig

Logprobs = list[list[float]]


@dataclass
class Completion:
    """mu, reference: log-probs of its tokens under the policy that drew them and under the reference. entropy: of the
    distributions, fixed here."""

    mu: list[float]
    reference: list[float]
    advantage: float
    entropy: list[float]


def random_step(seed: int, spread: float, longest: int = 5) -> tuple[Logprobs, list[Completion]]:
    """(log-probs under the current policy, five completions). The log-probs differ from mu by at most `spread`."""
    rng = np.random.default_rng(seed)
    mu = [rng.uniform(-3, -0.5, rng.integers(1, longest + 1)) for _ in range(5)]
    step = [
        Completion(m.tolist(), (m + rng.normal(0, 0.5, len(m))).tolist(), a, rng.uniform(0, 2, len(m)).tolist())
        for m, a in zip(mu, [1.3, -0.7, 0.4, -1.9, 0.9])
    ]
    return [(m + rng.uniform(-spread, spread, len(m)) * (spread > 0)).tolist() for m in mu], step


def aggregate(values: Logprobs, how: str, max_length: int) -> float:
    if how == "sequence_mean":
        return sum(sum(tokens) / len(tokens) for tokens in values) / len(values)
    total = sum(map(sum, values))
    return total / (sum(map(len, values)) if how == "token_mean" else len(values) * max_length)


def clip(x: float, config: AlgorithmConfig) -> float:
    return min(max(x, 1 - config.clip_low), 1 + config.clip_high)


def log_prox(mu: float, frozen: float, config: AlgorithmConfig) -> float:
    alpha = config.proximal.alpha
    return {"behaviour": mu, "recomputed": frozen, "interpolated": alpha * mu + (1 - alpha) * frozen}[
        config.proximal.policy
    ]


def corrections(prox: list[float], mu: list[float], config: AlgorithmConfig) -> list[float]:
    """The factor of each token of one completion."""
    c, ratios = config.correction, [math.exp(p - m) for p, m in zip(prox, mu)]
    low, high = c.low, c.high
    if c.mode == "none":
        return [1.0] * len(mu)
    if c.mode == "reject":
        tested = ratios if c.level == "token" else [math.prod(ratios) ** (1 / len(ratios))]
        return [1.0 if all(low <= ratio <= high for ratio in tested) else 0.0] * len(mu)
    weights = ratios if c.level == "token" else [math.prod(ratios)] * len(mu)
    if c.mode == "truncate":
        return [min(weight, high) for weight in weights]
    if c.mode == "mask":
        return [weight if low <= weight <= high else 0.0 for weight in weights]
    return weights


def objectives(
    pi: list[float], frozen: list[float], prox: list[float], advantage: float, config: AlgorithmConfig
) -> list[float]:
    """The objective of each token of one completion."""
    if config.loss == "gspo":
        likelihood = math.prod(math.exp(p - q) for p, q in zip(pi, prox))
        s = likelihood ** (1 / len(pi))
        return [min(s * advantage, clip(s, config) * advantage)] * len(pi)
    gains = []
    for log_pi, constant, log_q in zip(pi, frozen, prox):
        if config.loss == "grpo":
            u = math.exp(log_pi) / math.exp(log_q)
            gains.append(min(u * advantage, clip(u, config) * advantage))
        elif config.loss == "cispo":
            gains.append(clip(math.exp(constant) / math.exp(log_q), config) * advantage * log_pi)
        elif config.loss == "reinforce":
            gains.append(advantage * log_pi)
        else:
            raise ValueError(f"no reference for {config.loss}")
    return gains


def divergence(log_pi: float, log_ref: float, estimator: str) -> float:
    k1 = log_pi - log_ref
    return {"k1": k1, "k2": k1**2 / 2, "k3": math.exp(log_ref) / math.exp(log_pi) - (log_ref - log_pi) - 1}[estimator]


def loss(pi: Logprobs, frozen: Logprobs, step: list[Completion], config: AlgorithmConfig, max_length: int) -> float:
    values = []
    for current, constant, completion in zip(pi, frozen, step):
        prox = [log_prox(m, f, config) for m, f in zip(completion.mu, constant)]
        gains = objectives(current, constant, prox, completion.advantage, config)
        factors = corrections(prox, completion.mu, config)
        tokens = []
        for t, (factor, gain) in enumerate(zip(factors, gains)):
            rho = math.exp(constant[t]) / math.exp(completion.mu[t])
            kl = divergence(current[t], completion.reference[t], config.kl.estimator)
            penalty = config.kl.coefficient * rho * kl if config.kl.where == "loss" else 0.0
            tokens.append(factor * gain - penalty + config.entropy * completion.entropy[t])
        values.append(tokens)
    return -aggregate(values, config.aggregate, max_length)


def gradient(pi: Logprobs, step: list[Completion], config: AlgorithmConfig, max_length: int) -> list[float]:
    """Gradient over the log-prob of every token, one completion after another, by central differences."""
    gradients, h = [], 1e-6
    for i, logprobs in enumerate(pi):
        for t in range(len(logprobs)):
            sides = []
            for sign in (1, -1):
                shifted = [list(completion) for completion in pi]
                shifted[i][t] += sign * h
                sides.append(loss(shifted, pi, step, config, max_length))
            gradients.append((sides[0] - sides[1]) / (2 * h))
    return gradients
