"""Temperature scaling: one number per kind of question that calibrates a referee's probabilities.

p_T(k) is proportional to p(k)^(1/T): T above 1 corrects overconfidence, T below 1 underconfidence. The order of the
three tokens does not change, so the argmax reading is unaffected. `ser calibrate` fits T on labels and stores it in a
calibration.json with the digest of its referee; referee/service/sources loads it for that referee only.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar

from evidence.files import write_text
from evidence.plain import dumps
from referee.verification import TINY, rescaled

# A fit beyond these only means that the labels are noise, or free of errors.
LOWEST, HIGHEST = 0.05, 20.0


def log_loss(probabilities: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood, in nats. Both are float [N, 3]; a row of `labels` is a distribution over the three
    tokens: one-hot for a known label, the shares of the raters where they differ."""
    return float(-(labels * np.log(np.maximum(rescaled(probabilities, temperature), TINY))).sum(axis=1).mean())


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The T in LOWEST..HIGHEST that minimises `log_loss`. Raises ValueError without labels."""
    if len(labels) == 0:
        raise ValueError("no labels to fit a temperature on")
    best = minimize_scalar(
        lambda log_t: log_loss(probabilities, labels, math.exp(log_t)),
        bounds=(math.log(LOWEST), math.log(HIGHEST)),
        method="bounded",
    )
    return math.exp(best.x)


def write_calibration(path: Path, temperature: dict[str, float], referee: str) -> None:
    """Write a calibration file. `temperature`: by kind of question; `referee`: the digest of the model."""
    write_text(path, dumps({"temperature": temperature, "referee": referee}, indent=1) + "\n")
