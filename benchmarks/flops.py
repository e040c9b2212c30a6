"""FLOPs of a step, from shapes: two for each multiplication of a weight, or of two positions that see each other.

What is left out, norms, rotations and activations, is below a hundredth of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from learner.model.attention import pieces_of
from learner.packing.batch import Batch


def language_flops(config: Any, batch: Batch, head_passes: int = 3) -> float:
    """Of a forward and backward over `batch` in the language model of `config` and its head. A pass is a forward; a
    backward is two. `head_passes`: 4 counts the head's forward that learner/model/head runs once more."""
    width = config.hidden_size
    head_width = getattr(config, "head_dim", None) or width // config.num_attention_heads
    queries, keys = config.num_attention_heads * head_width, config.num_key_value_heads * head_width
    layer = batch.branch.size * (width * 2 * (queries + keys) + 3 * width * config.intermediate_size)
    layers = config.num_hidden_layers * (layer + 2 * queries * pairs(batch))
    return 2 * (3 * layers + head_passes * len(batch.targets) * width * config.vocab_size)


def pairs(batch: Batch) -> int:
    """Of a query and a key that it sees."""
    rows = pieces_of(torch.from_numpy(batch.segment), torch.from_numpy(batch.branch))
    return sum(
        piece.prefix * (piece.prefix + 1) // 2 + sum(n * piece.prefix + n * (n + 1) // 2 for n in piece.branches)
        for row in rows
        for piece in row
    )


def tower_flops(config: Any, grids: np.ndarray) -> float:
    """Of a forward of Qwen2.5-VL's vision tower, all of whose layers attend to a whole frame. grids: [n, 3]."""
    frames = np.repeat(grids[:, 1] * grids[:, 2], grids[:, 0]).astype(float)  # patches of each
    width, merged = config.hidden_size, config.hidden_size * config.spatial_merge_size**2
    layer = frames * (4 * width**2 + 3 * width * config.intermediate_size) + 2 * width * frames**2
    embedding = width * config.in_channels * config.temporal_patch_size * config.patch_size**2
    merger = merged * (merged + config.out_hidden_size) / config.spatial_merge_size**2
    return float(2 * (config.depth * layer + frames * (embedding + merger)).sum())
