"""The inputs and outputs of every loss, for the N scored tokens of a micro-batch.

Guarantee: a loss is a weighted sum over tokens whose weights already hold the mean over the whole step (all ranks and
micro-batches), so that neither the number of ranks nor the split into micro-batches changes the gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch


class PolicyOutput(NamedTuple):
    """Output of the current policy, differentiable. `logprobs`: [N], of the drawn tokens. `entropy`: [N], nats, of its
    distributions at these tokens; None if not computed.

    A tuple, because DeepSpeed finds the tensors of a forward only in tuples, lists and dicts."""

    logprobs: torch.Tensor
    entropy: torch.Tensor | None = None


@dataclass(frozen=True)
class TokenTargets:
    """What a loss is given about N scored tokens besides the policy's output; float32 [N] each except `sequence`.

    weights: share of the token in the step's aggregate: the sum over the step of weights * x is the aggregate of x.
    advantages: A of the token's trajectory. behaviour: log-prob under the distribution that drew the token.
    sequence: int64 [N], the token's completion, 0..K-1; the micro-batch contains each of its completions whole.
    reference: log-prob under the reference policy, if there is one.
    """

    weights: torch.Tensor
    advantages: torch.Tensor
    behaviour: torch.Tensor
    sequence: torch.Tensor
    reference: torch.Tensor | None = None

    def sequence_sum(self, values: torch.Tensor) -> torch.Tensor:
        """[N]: for each token, the sum of `values` [N] over its sequence."""
        count = int(self.sequence.max()) + 1 if len(self.sequence) else 0
        return values.new_zeros(count).index_add(0, self.sequence, values)[self.sequence]

    def sequence_mean(self, values: torch.Tensor) -> torch.Tensor:
        """[N]: for each token, the mean of `values` [N] over its sequence."""
        return self.sequence_sum(values) / self.sequence_sum(torch.ones_like(values))


@dataclass(frozen=True)
class LossResult:
    """`loss`: scalar to minimise. `metrics`: sums over tokens with the same weights; they add up over ranks, as do
    `ratio_counts`, float64 [bins]: how many tokens have an importance ratio in each bin of ratios.EDGES; None if the
    loss has none."""

    loss: torch.Tensor
    metrics: dict[str, float]
    ratio_counts: np.ndarray | None = None


Loss = Callable[[PolicyOutput, TokenTargets], LossResult]
