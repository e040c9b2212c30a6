"""FLOPs of a step that was taken, from the model's shape and the lengths of its groups. Pure.

A forward counts once and a backward twice; without gradients of frozen weights, which LoRA has none of, once. What is
computed again (checkpointed layers, the head in its backward) is not counted, as in a model FLOPs utilisation. A frozen
tower counts its forward for each group, also where its features were kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evidence.types import Group
from learner.settings import PackingConfig, PolicyConfig
from orchestration.planning.shapes import Shape, VisionShape


def step_flops(shape: Shape, groups: Sequence[Group], packing: PackingConfig, policy: PolicyConfig) -> float:
    """FLOPs of forward and backward over all completions of the groups."""
    return sum(_group_flops(shape, group, packing, policy) for group in groups)


def _group_flops(shape: Shape, group: Group, packing: PackingConfig, policy: PolicyConfig) -> float:
    prompt = len(group.prompt.token_ids)
    lengths = np.array([len(trajectory.token_ids) for trajectory in group.trajectories])
    prompts = 1 if packing.mode == "prefix" else len(lengths)
    images = len(lengths) if packing.mode == "none" else 1
    tokens = prompts * prompt + lengths.sum()
    # A completion attends to its prompt and to itself, causally.
    pairs = prompts * prompt**2 / 2 + (lengths * (prompt + lengths / 2)).sum()
    passes = 2 if policy.lora else 3
    seen = sum(_tower_flops(shape.vision, float(t * h * w), float(h * w)) for t, h, w in group.prompt.grids)
    language = passes * (shape.text_flops(float(tokens), float(pairs)) + shape.head_flops(float(lengths.sum())))
    return language + (3 if policy.train_vision else 1) * images * seen


def _tower_flops(vision: VisionShape, patches: float, patches_per_image: float) -> float:
    """FLOPs of a forward, as if all layers attended to the whole image. Mergers run once for several patches."""
    per_patch = vision.layers * vision.layer_parameters + vision.patch_values * vision.width
    mergers = vision.parameters - per_patch - vision.positions * vision.width
    attention = 2 * vision.layers * vision.width * patches_per_image
    return 2 * patches * (per_patch + mergers / vision.merged + attention)
