"""From scored groups to what each learner rank is handed: advantages, rows, micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evidence.types import Group, ScoredGroup
from learner.aggregation import token_weights
from learner.micro import MicroBatch
from learner.packing import pack_row, split_by_tokens, stack_rows


def train_batches(
    groups: Sequence[ScoredGroup],
    advantages: Sequence[np.ndarray],
    frames: Sequence[Any],
    ranks: int,
    budget: int,
    aggregate: str = "sequence_mean",
    max_length: int = 0,
) -> list[list[MicroBatch]]:
    """Each rank's micro-batches of one step: one row per group, the prompt and its video shared by its completions.

    `advantages[i]`: float32 [G], `frames[i]`: ref to the frames, of groups[i]. `aggregate`, `max_length`: of the
    step's tokens, as in token_weights.
    """
    lengths = np.array([len(t.token_ids) for scored in groups for t in scored.group.trajectories])
    weights = token_weights(lengths, aggregate, max_length)
    return _micro_batches([scored.group for scored in groups], weights, advantages, frames, ranks, budget)


def scoring_batches(groups: Sequence[Group], frames: Sequence[Any], ranks: int, budget: int) -> list[list[MicroBatch]]:
    """As `train_batches`, to compute log-probs only."""
    zeros = [np.zeros(len(group.trajectories), np.float32) for group in groups]
    weights = np.zeros(sum(len(t.token_ids) for group in groups for t in group.trajectories), np.float32)
    return _micro_batches(groups, weights, zeros, frames, ranks, budget)


def _micro_batches(
    groups: Sequence[Group],
    weights: np.ndarray,
    advantages: Sequence[np.ndarray],
    frames: Sequence[Any],
    ranks: int,
    budget: int,
) -> list[list[MicroBatch]]:
    rows = [pack_row([g.prompt] * len(g.trajectories), [t.token_ids for t in g.trajectories]) for g in groups]
    # One weight a token, cut back into groups: the mean is over the whole step, whoever computes which part.
    shares = np.split(weights, np.cumsum([len(row.targets) for row in rows])[:-1])
    behaviour = [np.concatenate([t.logprobs for t in g.trajectories]) for g in groups]
    per_token = [advantage[row.sequence] for advantage, row in zip(advantages, rows)]

    def join(arrays: Sequence[np.ndarray], indices: list[int]) -> np.ndarray:
        return np.concatenate([arrays[i] for i in indices]).astype(np.float32)

    return [
        [
            MicroBatch(
                batch=stack_rows([rows[i] for i in indices]),
                images=tuple(frames[i] for i in indices),
                weights=join(shares, indices),
                advantages=join(per_token, indices),
                behaviour=join(behaviour, indices),
            )
            for indices in rank
        ]
        for rank in split_by_tokens(rows, ranks, budget)
    ]
