"""Compilations of FlexAttention over rows of changing lengths, and the memory of each length.

`compilations` is expected to be 2: one for the first length, and one for all others (learner/model/attention). On a CPU
the attention of the rows runs forward alone, since FlexAttention has no backward there.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch._dynamo.utils import counters

from benchmarks.gpu.attention import WIDTH, attend
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.workload import Work, make_policy, make_row
from learner.model.attention import FLEX, attention_for, padded_length
from learner.model.policy import Rows

LENGTHS = (5_120, 9_216, 16_384, 7_003, 12_001, 16_000, 6_200, 14_777, 8_192, 10_240)
SMALL_LENGTHS = (300, 517, 130, 640)


def measure(setting: Setting) -> dict[str, Any]:
    assert attention_for("cuda") == FLEX  # sets the limits of recompilation
    counters.clear()
    lengths = SMALL_LENGTHS if setting.small else LENGTHS
    by_length = _layers(setting, lengths) if setting.on_gpu else [_forward(setting, n) for n in lengths]
    graphs = counters["stats"]["unique_graphs"]
    return {"compilations": graphs, "recompile_reasons": len(counters["recompiles"]), "lengths": by_length}


def _layers(setting: Setting, lengths: tuple[int, ...]) -> list[dict[str, Any]]:
    """Two layers of the 7B, forward and backward."""
    policy = make_policy("7b", setting, layers=2)
    measured = []
    for tokens in lengths:
        completion = 16 if setting.small else 512
        work = Work.of(policy, make_row(tokens, completion=completion), setting.device)
        start = time.perf_counter()
        peak = setting.peak_gib(work.step)
        measured.append({"tokens": tokens, "seconds": time.perf_counter() - start, "peak_gib": peak})
    return measured


def _forward(setting: Setting, tokens: int) -> dict[str, Any]:
    rows = Rows.of(make_row(tokens, branches=4, completion=tokens // 20).batch).padded_to(padded_length(tokens))
    inputs = [torch.randn(1, 2, rows.token_ids.shape[1], WIDTH)] * 3
    start = time.perf_counter()
    with torch.no_grad():
        attend(FLEX, rows, inputs, None, setting.device, setting.dtype)
    return {"tokens": tokens, "seconds": time.perf_counter() - start, "peak_gib": None}
