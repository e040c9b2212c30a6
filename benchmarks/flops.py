"""FLOPs of a step, from shapes: two per multiplication by a weight, or between a query and a key or value it attends
to.

Norms, rotary embeddings and activations are left out; they are below 1% of the total.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from learner.model.attention import pieces_of
from learner.packing.batch import Batch


def language_flops(config: Any, batch: Batch, head_passes: int = 3) -> float:
    """FLOPs of a forward and backward over `batch` in the language model of `config` and its head. A forward is one
    pass, a backward two. `head_passes`: 4 includes the second forward of the head in learner/model/head."""
    width = config.hidden_size
    head_width = getattr(config, "head_dim", None) or width // config.num_attention_heads
    queries, keys = config.num_attention_heads * head_width, config.num_key_value_heads * head_width
    layer = batch.branch.size * (width * 2 * (queries + keys) + 3 * width * config.intermediate_size)
    layers = config.num_hidden_layers * (layer + 2 * queries * pairs(batch))
    return 2 * (3 * layers + head_passes * len(batch.targets) * width * config.vocab_size)


def pairs(batch: Batch) -> int:
    """The number of pairs of a query and a key that it attends to."""
    rows = pieces_of(torch.from_numpy(batch.segment), torch.from_numpy(batch.branch))
    return sum(
        piece.prefix * (piece.prefix + 1) // 2 + sum(n * piece.prefix + n * (n + 1) // 2 for n in piece.branches)
        for row in rows
        for piece in row
    )


def tower_flops(config: Any, grids: np.ndarray) -> float:
    """FLOPs of a forward of Qwen2.5-VL's vision tower, if all layers attend to the whole frame. grids: [n, 3]."""
    frames = np.repeat(grids[:, 1] * grids[:, 2], grids[:, 0]).astype(float)  # patches per frame
    width, merged = config.hidden_size, config.hidden_size * config.spatial_merge_size**2
    layer = frames * (4 * width**2 + 3 * width * config.intermediate_size) + 2 * width * frames**2
    embedding = width * config.in_channels * config.temporal_patch_size * config.patch_size**2
    merger = merged * (merged + config.out_hidden_size) / config.spatial_merge_size**2
    return float(2 * (config.depth * layer + frames * (embedding + merger)).sum())
