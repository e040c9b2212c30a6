"""Memory used by the log-probs of scored tokens, by size of the vocabulary.

`python -m benchmarks.logprob_memory` prints, as JSON, the peak MiB of live tensors in a forward and backward of
learner/model/head and of a plain log-softmax, without the head's weight and its gradient: counted, not sampled.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from learner.model.head import ScoringHead

VOCABULARIES = (1_000, 10_000, 150_000)
TOKENS, WIDTH = 1024, 64
CHUNK_MIB = 2


class PeakBytes(TorchDispatchMode):
    """Counts the bytes of tensors created while the mode is active, and the peak of those alive."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        inputs = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in inputs and storage._cdata not in self.alive:
                    self.alive[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self.alive.pop, storage._cdata, None)
        self.peak = max(self.peak, sum(self.alive.values()))
        return out


def peak_mib(logprobs: Callable[[], torch.Tensor], head: nn.Linear) -> float:
    """Peak MiB of live tensors in the forward and backward of `logprobs`, without the gradient of `head`'s weight."""
    with PeakBytes() as counted:
        logprobs().sum().backward()
    return (counted.peak - head.weight.nbytes) / 2**20


def measure(vocab: int) -> dict[str, float]:
    head = nn.Linear(WIDTH, vocab, bias=False)
    hidden, targets = torch.randn(TOKENS, WIDTH, requires_grad=True), torch.randint(vocab, (TOKENS,))
    score = ScoringHead(head, (), CHUNK_MIB)
    return {
        "chunked": peak_mib(lambda: score(hidden, targets, 1.0)[0], head),
        "whole": peak_mib(lambda: head(hidden).log_softmax(1).gather(1, targets[:, None]), head),
    }


if __name__ == "__main__":
    print(json.dumps({vocab: measure(vocab) for vocab in VOCABULARIES}))
