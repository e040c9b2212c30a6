"""The losses, slowly: python floats, loops over completions and their tokens, written from the papers' formulas.

What a loss holds constant is read from `frozen`, so that central differences of `loss` over `pi` are its gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from learner.algorithm import AlgorithmConfig

Logprobs = list[list[float]]


@dataclass
class Completion:
    """Log-probs of its tokens under the policy that drew them and under the reference, its advantage, and the entropy
    of the distributions, which here is fixed."""

    mu: list[float]
    reference: list[float]
    advantage: float
    entropy: list[float]


def random_step(seed: int, spread: float, longest: int = 5) -> tuple[Logprobs, list[Completion]]:
    """Five completions, and the current policy's log-probs, at most about `spread` from those they were drawn with."""
    rng = np.random.default_rng(seed)
    mu = [rng.uniform(-3, -0.5, rng.integers(1, longest + 1)) for _ in range(5)]
    step = [
        Completion(one.tolist(), (one + rng.normal(0, 0.5, len(one))).tolist(), a, rng.uniform(0, 2, len(one)).tolist())
        for one, a in zip(mu, [1.3, -0.7, 0.4, -1.9, 0.9])
    ]
    return [(one + rng.uniform(-spread, spread, len(one)) * (spread > 0)).tolist() for one in mu], step


def aggregate(values: Logprobs, how: str, max_length: int) -> float:
    if how == "sequence_mean":
        return sum(sum(one) / len(one) for one in values) / len(values)
    total = sum(sum(one) for one in values)
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
        judged = ratios if c.level == "token" else [math.prod(ratios) ** (1 / len(ratios))]
        return [1.0 if all(low <= one <= high for one in judged) else 0.0] * len(mu)
    weights = ratios if c.level == "token" else [math.prod(ratios)] * len(mu)
    if c.mode == "truncate":
        return [min(one, high) for one in weights]
    if c.mode == "mask":
        return [one if low <= one <= high else 0.0 for one in weights]
    return weights


def objectives(
    pi: list[float], frozen: list[float], prox: list[float], advantage: float, config: AlgorithmConfig
) -> list[float]:
    """Of each token of one completion."""
    if config.loss == "gspo":
        likelihood = math.prod(math.exp(p - q) for p, q in zip(pi, prox))
        s = likelihood ** (1 / len(pi))
        return [min(s * advantage, clip(s, config) * advantage)] * len(pi)
    found = []
    for log_pi, constant, log_q in zip(pi, frozen, prox):
        if config.loss == "grpo":
            u = math.exp(log_pi) / math.exp(log_q)
            found.append(min(u * advantage, clip(u, config) * advantage))
        elif config.loss == "cispo":
            found.append(clip(math.exp(constant) / math.exp(log_q), config) * advantage * log_pi)
        else:
            found.append(advantage * log_pi)
    return found


def price(log_pi: float, log_ref: float, estimator: str) -> float:
    k1 = log_pi - log_ref
    return {"k1": k1, "k2": k1**2 / 2, "k3": math.exp(log_ref) / math.exp(log_pi) - (log_ref - log_pi) - 1}[estimator]


def loss(pi: Logprobs, frozen: Logprobs, step: list[Completion], config: AlgorithmConfig, max_length: int) -> float:
    values = []
    for mine, constant, one in zip(pi, frozen, step):
        prox = [log_prox(m, f, config) for m, f in zip(one.mu, constant)]
        gains = objectives(mine, constant, prox, one.advantage, config)
        factors = corrections(prox, one.mu, config)
        tokens = []
        for t, (factor, gain) in enumerate(zip(factors, gains)):
            rho = math.exp(constant[t]) / math.exp(one.mu[t])
            divergence = price(mine[t], one.reference[t], config.kl.estimator)
            paid = config.kl.coefficient * rho * divergence if config.kl.where == "loss" else 0.0
            tokens.append(factor * gain - paid + config.entropy * one.entropy[t])
        values.append(tokens)
    return -aggregate(values, config.aggregate, max_length)


def gradient(pi: Logprobs, step: list[Completion], config: AlgorithmConfig, max_length: int) -> list[float]:
    """Of every token's log-prob, one completion after another, by central differences."""
    found, h = [], 1e-6
    for i, one in enumerate(pi):
        for t in range(len(one)):
            sides = []
            for sign in (1, -1):
                moved = [list(each) for each in pi]
                moved[i][t] += sign * h
                sides.append(loss(moved, pi, step, config, max_length))
            found.append((sides[0] - sides[1]) / (2 * h))
    return found
