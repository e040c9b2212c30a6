"""The reference policy of the KL term: the policy as it was when the run began.

Guarantees: it scores the very micro-batches that the policy is trained on, with the policy's banned set and
temperature, since the ranks of both are made from one configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from learner.settings import PolicyConfig, RankConfig, ReferenceConfig
from orchestration.supervision.learner_gang import LearnerGang


class Reference:
    """The reference of a `config.kind` other than none. frozen: separate ranks with a copy of the weights and no
    optimizer. lora_off: the policy's ranks with their adapter switched off."""

    def __init__(self, config: ReferenceConfig, policy: LearnerGang, ranks: RankConfig, gpus: float = 0.0):
        """`ranks`: the configuration of the policy's ranks. `gpus`: GPUs per rank of a frozen copy."""
        self.kind, self.gang, self.world = config.kind, policy, config.ranks
        if config.kind == "frozen":
            sizes = {key: getattr(ranks.policy, key) for key in ("vision_cache_mib", "logit_chunk_mib")}
            frozen = replace(ranks, policy=PolicyConfig(**sizes), zero=replace(ranks.zero, ema=None), trained=False)
            self.gang = LearnerGang(frozen, config.ranks, gpus)

    def logprobs(self, parts: Sequence[Sequence[Any]]) -> list[list[np.ndarray]]:
        """Log-probs, float32 [N], of each micro-batch; `parts[r]` are the micro-batches of the policy's rank r."""
        if self.kind == "lora_off":
            return self.gang.reference_logprobs(parts)
        flat = [micro for part in parts for micro in part]
        shares = [flat[rank :: self.world] for rank in range(self.world)]
        # ZeRO-3 needs the same number of forwards on every rank.
        most = len(shares[0])
        shares = [share + flat[: most - len(share)] for share in shares]
        # Before any collective: a rank that found its frames lost in a forward would leave the others waiting.
        self.gang.fetch(shares)
        logprobs = self.gang.logprobs(shares)
        self.gang.drop_frames()
        in_order = iter([logprobs[n % self.world][n // self.world] for n in range(len(flat))])
        return [[next(in_order) for _ in part] for part in parts]

    def stop(self) -> None:
        """Stop the ranks of a frozen copy."""
        if self.kind == "frozen":
            self.gang.stop()
