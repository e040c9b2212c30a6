"""The reference policy, which a KL term compares with: the policy as it was when the run began.

Guarantees: it takes the micro-batches that the policy is trained on, and its distribution is made as the policy's: same
banned set, same temperature, since both are ranks of one configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from learner.settings import PolicyConfig, RankConfig, ReferenceConfig
from orchestration.supervision.learner_gang import LearnerGang


class Reference:
    """frozen: ranks of its own, with a copy of the weights and no optimizer. lora_off: the policy's, without their
    adapter. For a `config.kind` of none there is nothing to make."""

    def __init__(self, config: ReferenceConfig, policy: LearnerGang, ranks: RankConfig, gpus: float = 0.0):
        """`ranks`: what the policy's were made from; `gpus`: of each rank of a frozen copy."""
        self.kind, self.gang, self.world = config.kind, policy, config.ranks
        if config.kind == "frozen":
            sizes = {key: getattr(ranks.policy, key) for key in ("vision_cache_mib", "logit_chunk_mib")}
            alone = PolicyConfig(**sizes)  # of which nothing is trained
            own = replace(ranks, policy=alone, zero=replace(ranks.zero, ema=None), trained=False)
            self.gang = LearnerGang(own, config.ranks, gpus)

    def logprobs(self, parts: Sequence[Sequence[Any]]) -> list[list[np.ndarray]]:
        """float32 [N] of each micro-batch of each of the policy's ranks."""
        if self.kind == "lora_off":
            return self.gang.reference_logprobs(parts)
        flat = [micro for part in parts for micro in part]
        dealt = [flat[rank :: self.world] for rank in range(self.world)]
        # ZeRO-3 needs as many forwards of every rank.
        most = len(dealt[0])
        dealt = [part + flat[: most - len(part)] for part in dealt]
        # Before anything collective: a rank that found its frames lost in a forward would leave the others waiting.
        self.gang.fetch(dealt)
        found = self.gang.logprobs(dealt)
        self.gang.let_go()
        in_order = iter([found[n % self.world][n // self.world] for n in range(len(flat))])
        return [[next(in_order) for _ in part] for part in parts]

    def stop(self) -> None:
        """End what was started for it."""
        if self.kind == "frozen":
            self.gang.stop()
