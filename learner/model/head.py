"""Log-probs and entropies of scored tokens, without all logits in memory at once.

Guarantees: the vocabulary is processed in chunks of columns, recomputed in the backward, so that beside the head's
weight and its gradient only a few chunks of `chunk_mib` are alive; values and gradients are those of the plain
computation: logits in the weight's dtype, everything after them in float32. Where the engine drew from a part of the
vocabulary, they are those of the distribution renormalised over that part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from evidence.sampling import BANNED_LOGIT_BIAS

FLOAT32_BYTES = 4
# Logit of a token that could not be drawn: its probability is exactly 0, and 0 times it is 0, unlike with infinity.
NOT_KEPT = -1e30


class ScoringHead(nn.Module):
    """A model's lm_head that returns log-probs instead of logits.

    It is a separate module over the same parameter, because ZeRO-3 gathers a parameter only around the forward and
    backward of the modules that own it.
    """

    bias: torch.Tensor

    def __init__(self, lm_head: nn.Linear, banned_ids: Sequence[int], chunk_mib: int):
        super().__init__()
        self.weight = lm_head.weight
        self.chunk_bytes = chunk_mib << 20
        # Not from the weight's shape, which is empty under ZeRO-3.
        bias = torch.zeros(lm_head.out_features)
        bias[list(banned_ids)] = BANNED_LOGIT_BIAS
        # Not persistent: it is not a weight and must not enter checkpoints.
        self.register_buffer("bias", bias, persistent=False)

    def forward(
        self, hidden: torch.Tensor, targets: torch.Tensor, temperature: float, kept: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(log-probs of `targets`, entropies in nats), float32 [N] each, of the distributions that `hidden` [N, width]
        predicts: logits plus the bias of banned tokens, divided by `temperature`.

        kept: int64 [N, K], the ids to which each distribution was restricted, the target's among them, padded with -1;
        None is the whole vocabulary. A kept set is constant for the gradient, as for a policy that is sampled by top-p.
        """
        columns = max(1, self.chunk_bytes // (FLOAT32_BYTES * max(1, len(hidden))))
        return _Score.apply(hidden, self.weight, self.bias, targets, temperature, columns, kept)


class _Score(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        targets: torch.Tensor,
        temperature: float,
        columns: int,
        kept: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # Over the columns so far: the highest logit and, relative to it, sum exp(l) and sum l exp(l).
        highest = torch.full((len(hidden),), -torch.inf, device=hidden.device)
        total, weighted, chosen = (torch.zeros_like(highest) for _ in range(3))
        for at in range(0, len(weight), columns):
            logits = _logits(hidden, weight, bias, temperature, slice(at, at + columns), kept)
            higher = torch.maximum(highest, logits.amax(1))
            mass = (logits - higher[:, None]).exp_()
            shrunk = (highest - higher).exp_()
            total = total * shrunk + mass.sum(1)
            weighted = weighted * shrunk + torch.linalg.vecdot(mass, logits)
            rows = _within(targets, at, logits)
            chosen[rows] = logits[rows, targets[rows] - at]
            highest = higher
        log_total, mean = highest + total.log(), weighted / total
        ctx.save_for_backward(hidden, weight, bias, targets, log_total, mean, kept)
        ctx.temperature, ctx.columns = temperature, columns
        ctx.set_materialize_grads(False)
        return chosen - log_total, log_total - mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, bias, targets, log_total, mean, kept = ctx.saved_tensors
        of_logprob, of_entropy = (torch.zeros_like(log_total) if g is None else g for g in gradients)
        hidden_gradient = torch.zeros_like(hidden, dtype=torch.float32)
        weight_gradient = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        for at in range(0, len(weight), ctx.columns):
            part = slice(at, at + ctx.columns)
            logits = _logits(hidden, weight, bias, ctx.temperature, part, kept)
            # With p = exp(l - log sum exp): d logprob / dl = [l is the target's] - p, d entropy / dl = -p (l - mean).
            p = (logits - log_total[:, None]).exp_()
            flow = logits.sub_(mean[:, None]).mul_(of_entropy[:, None]).add_(of_logprob[:, None]).mul_(p).neg_()
            rows = _within(targets, at, flow)
            flow[rows, targets[rows] - at] += of_logprob[rows]
            flow = flow.div_(ctx.temperature).to(hidden.dtype)
            hidden_gradient += flow @ weight[part]
            if weight_gradient is not None:
                torch.mm(flow.T, hidden, out=weight_gradient[part])
        return hidden_gradient.to(hidden.dtype), weight_gradient, None, None, None, None, None


def _logits(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    temperature: float,
    part: slice,
    kept: torch.Tensor | None,
) -> torch.Tensor:
    """float32 [N, columns of `part`], NOT_KEPT outside `kept`."""
    logits = (hidden @ weight[part].T).float().add_(bias[part]).div_(temperature)
    if kept is None:
        return logits
    columns = kept - part.start
    inside = (columns >= 0) & (columns < logits.shape[1]) & (kept >= 0)
    rows, places = torch.nonzero(inside, as_tuple=True)
    dropped = torch.ones_like(logits, dtype=torch.bool)
    dropped[rows, columns[rows, places]] = False
    return logits.masked_fill_(dropped, NOT_KEPT)


def _within(targets: torch.Tensor, at: int, chunk: torch.Tensor) -> torch.Tensor:
    """Indices of the rows whose target is a column of the chunk that begins at column `at`."""
    return torch.nonzero((targets >= at) & (targets < at + chunk.shape[1]))[:, 0]
