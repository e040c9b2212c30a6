"""Temperature scaling: one number per question that makes a referee's probabilities mean what they say.

p_T(k) is proportional to p(k)^(1/T): T above 1 makes an overconfident referee milder, below 1 a timid one bolder. It
changes no order of the three tokens, so the argmax reading stays as it is. Fitted on labels by `ser calibrate` and kept
in a calibration.json with the digest of the referee it was fitted on; referee/service/sources reads it, for that
referee alone.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar

from referee.verification import TINY, rescaled

# Beyond these a fit only says that the labels are noise, or without an error.
LOWEST, HIGHEST = 0.05, 20.0


def log_loss(probabilities: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood, in nats. Both are float [N, 3]; a row of `labels` is a distribution over the three
    tokens: one-hot for a known label, the shares of the raters where they differ."""
    return float(-(labels * np.log(np.maximum(rescaled(probabilities, temperature), TINY))).sum(axis=1).mean())


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The T of least `log_loss`, in LOWEST..HIGHEST. Raises ValueError without a label."""
    if len(labels) == 0:
        raise ValueError("no label to fit a temperature on")
    best = minimize_scalar(
        lambda log_t: log_loss(probabilities, labels, math.exp(log_t)),
        bounds=(math.log(LOWEST), math.log(HIGHEST)),
        method="bounded",
    )
    return math.exp(best.x)


def write_calibration(path: Path, temperature: dict[str, float], referee: str) -> None:
    """`referee`: the digest of its weights and tokenizer."""
    path.write_text(json.dumps({"temperature": temperature, "referee": referee}, indent=1) + "\n")
