"""Layers of the 7B, forward and backward, with and without gradient checkpointing, at several row lengths.

`kept_kb_per_token` is what autograd keeps of a layer after the forward. `ser plan` counts 238 kB without checkpointing.
"""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.setting import GIB, Setting
from benchmarks.gpu.workload import Work, make_policy, make_row

LAYERS, SMALL_LAYERS = 4, 2
LENGTHS, SMALL_LENGTHS = (8_192, 16_384, 32_768), (128, 256)


def measure(setting: Setting) -> dict[str, Any]:
    lengths, layers = (SMALL_LENGTHS, SMALL_LAYERS) if setting.small else (LENGTHS, LAYERS)
    kinds = {"plain": False, "checkpointed": True}
    return {"layers": layers} | {
        kind: [_at(setting, tokens, layers, checkpointing) for tokens in lengths]
        for kind, checkpointing in kinds.items()
    }


def _at(setting: Setting, tokens: int, layers: int, checkpointing: bool) -> dict[str, Any]:
    policy = make_policy("7b", setting, layers, checkpointing)
    # Few scored tokens, so that the head takes little.
    work = Work.of(policy, make_row(tokens, branches=2, completion=8), setting.device)
    work.step()
    before = setting.allocated_gib()
    loss = work.forward()
    kept = None
    if before is not None:
        kept = (setting.allocated_gib() - before) * GIB / layers / tokens / 1000
    del loss
    peak = setting.peak_gib(work.step)
    seconds = setting.seconds(work.step)
    return {"tokens": tokens, "seconds": seconds, "peak_gib": peak, "kept_kb_per_token": kept}
