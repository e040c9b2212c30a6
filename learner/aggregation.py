"""The share of each token in a step's loss, computed once by the driver from all completions of the step, so that no
rank and no micro-batch ever takes a mean of its own. Pure."""

from __future__ import annotations

import numpy as np

AGGREGATES = ("sequence_mean", "token_mean", "constant")


def token_weights(lengths: np.ndarray, aggregate: str, max_length: int = 0) -> np.ndarray:
    """float32 [sum(lengths)]: the weight of each token of a step's completions, one completion after another.

    `lengths`: [completions], their tokens. `sequence_mean`: mean over completions of token means (GRPO, arXiv
    2402.03300, eq. 3). `token_mean`: one mean over all tokens (DAPO, arXiv 2503.14476, eq. 8). `constant`: the sum over
    completions * `max_length` (Dr.GRPO, arXiv 2503.20783).
    """
    if aggregate == "sequence_mean":
        share = 1.0 / (len(lengths) * lengths)
    else:
        share = np.full(len(lengths), 1.0 / (lengths.sum() if aggregate == "token_mean" else len(lengths) * max_length))
    return np.repeat(share, lengths).astype(np.float32)
