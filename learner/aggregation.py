"""The weight of each token in a step's loss. The driver computes it once from all completions of the step, so that no
rank or micro-batch takes a mean of its own. Pure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# name -> the weight of a token of each trained completion, [trained] or one for all, from (their lengths [trained],
# number of completions, max_length).
_SHARES: dict[str, Callable[[np.ndarray, int, int], np.ndarray | float]] = {
    "sequence_mean": lambda lengths, completions, max_length: 1.0 / (len(lengths) * lengths),
    "token_mean": lambda lengths, completions, max_length: 1.0 / lengths.sum(),
    "constant": lambda lengths, completions, max_length: 1.0 / (completions * max_length),
}
AGGREGATES = tuple(_SHARES)


def token_weights(
    lengths: np.ndarray, aggregate: str, max_length: int = 0, trained: np.ndarray | None = None
) -> np.ndarray:
    """float32 [sum(lengths)]: the weight of each token of a step's completions, one completion after another.

    `lengths`: [completions], their numbers of tokens. `sequence_mean`: mean over completions of token means (GRPO,
    arXiv 2402.03300, eq. 3). `token_mean`: one mean over all tokens (DAPO, arXiv 2503.14476, eq. 8). `constant`: the
    sum divided by completions * `max_length` (Dr.GRPO, arXiv 2503.20783).
    `trained`: bool [completions], None is all. The others' tokens have weight 0 and are no part of a mean, as tokens
    outside the mask in verl's agg_loss; the constant stays what it is.
    """
    shares = np.zeros(len(lengths))
    trained = np.ones(len(lengths), bool) if trained is None else trained
    if trained.any():
        shares[trained] = _SHARES[aggregate](lengths[trained], len(lengths), max_length)
    return np.repeat(shares, lengths).astype(np.float32)
