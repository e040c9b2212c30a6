"""The contents of one forward of a rank, and the distribution of a whole step over the ranks.

Per-token values of a step are flat arrays over all its scored tokens; `Batch.token` maps a forward's tokens into them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from learner.packing.batch import Batch, first_tokens, make_batch
from learner.packing.plan import Forward, make_plan
from learner.packing.shared_prefix import Unit
from learner.settings import PackingConfig


@dataclass(frozen=True)
class MicroLayout:
    """The input of one forward. images: uint8 [n, H, W, 3], or a ref to it, for each image set of the batch;
    image_keys: equal keys mean equal pixels."""

    batch: Batch
    images: tuple[Any, ...]
    image_keys: tuple[str, ...]


@dataclass(frozen=True)
class MicroBatch(MicroLayout):
    """The input of one forward and of its loss, float32 [N] each. reference: log-probs under the reference policy, if
    any."""

    weights: np.ndarray
    advantages: np.ndarray
    behaviour: np.ndarray
    reference: np.ndarray | None = None


@dataclass(frozen=True)
class StepTargets:
    """The inputs of the loss for all scored tokens of a step, in the order of `Batch.token`: float32 [tokens] each."""

    weights: np.ndarray
    advantages: np.ndarray
    behaviour: np.ndarray
    reference: np.ndarray | None = None


def lay_out(units: Sequence[Unit], ranks: int, packing: PackingConfig) -> list[list[MicroLayout]]:
    """The forwards of each rank over all sequences of `units`, the same number for every rank. Raises ValueError if a
    single sequence exceeds the token budget."""
    starts = first_tokens(units)

    def layout(forward: Forward) -> MicroLayout:
        batch, sets = make_batch(units, starts, forward, images_once=packing.mode != "none")
        return MicroLayout(batch, tuple(s.pixels for s in sets), tuple(s.key for s in sets))

    return [[layout(forward) for forward in forwards] for forwards in make_plan(units, ranks, packing)]


def with_targets(layouts: Sequence[Sequence[MicroLayout]], step: StepTargets) -> list[list[MicroBatch]]:
    """The `layouts` of each rank, with the inputs of the loss for their tokens."""

    def add_targets(layout: MicroLayout) -> MicroBatch:
        tokens = layout.batch.token
        reference = None if step.reference is None else step.reference[tokens]
        values = step.weights[tokens], step.advantages[tokens], step.behaviour[tokens], reference
        return MicroBatch(layout.batch, layout.images, layout.image_keys, *values)

    return [[add_targets(layout) for layout in forwards] for forwards in layouts]


def gather_tokens(layouts: Sequence[Sequence[MicroLayout]], values: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """float32 [tokens of the step] from float32 [N] of each forward of each rank."""
    tokens = np.concatenate([layout.batch.token for forwards in layouts for layout in forwards])
    flat = np.zeros(len(tokens), np.float32)
    flat[tokens] = np.concatenate([forward for forwards in values for forward in forwards])
    return flat
