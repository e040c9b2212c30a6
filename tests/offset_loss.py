"""A loss whose value can be non-finite while its gradient is finite."""

from __future__ import annotations

from typing import Any

from learner.losses import LossResult, PolicyOutput, TokenTargets


def offset_loss(output: PolicyOutput, targets: TokenTargets, options: dict[str, Any]) -> LossResult:
    return LossResult(targets.advantages.sum() - (targets.weights * output.logprobs).sum(), {})
