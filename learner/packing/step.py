"""What one forward of a rank is made of, and how a whole step is dealt out.

Per-token values of a step are flat arrays over all its scored tokens: `Batch.token` says which of them a forward holds.
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
    """What is run. images: of each of the batch's image sets, uint8 [n, H, W, 3] or a ref to it; image_keys: equal
    keys, equal pixels."""

    batch: Batch
    images: tuple[Any, ...]
    image_keys: tuple[str, ...]


@dataclass(frozen=True)
class MicroBatch(MicroLayout):
    """And what the loss is made of, float32 [N] each. reference: log-probs under the reference policy, if any."""

    weights: np.ndarray
    advantages: np.ndarray
    behaviour: np.ndarray
    reference: np.ndarray | None = None


@dataclass(frozen=True)
class StepTargets:
    """The same for all scored tokens of a step, in the order of `Batch.token`: float32 [tokens] each."""

    weights: np.ndarray
    advantages: np.ndarray
    behaviour: np.ndarray
    reference: np.ndarray | None = None


def lay_out(units: Sequence[Unit], ranks: int, packing: PackingConfig) -> list[list[MicroLayout]]:
    """Each rank's forwards over all sequences of `units`, equally many a rank. Raises ValueError if a sequence alone is
    above the token budget."""
    starts = first_tokens(units)

    def layout(forward: Forward) -> MicroLayout:
        batch, sets = make_batch(units, starts, forward, images_once=packing.mode != "none")
        return MicroLayout(batch, tuple(each.pixels for each in sets), tuple(each.key for each in sets))

    return [[layout(forward) for forward in forwards] for forwards in make_plan(units, ranks, packing)]


def with_targets(layouts: Sequence[Sequence[MicroLayout]], step: StepTargets) -> list[list[MicroBatch]]:
    """`layouts` (of each rank) with what the loss wants of their tokens."""

    def filled(layout: MicroLayout) -> MicroBatch:
        at = layout.batch.token
        reference = None if step.reference is None else step.reference[at]
        values = step.weights[at], step.advantages[at], step.behaviour[at], reference
        return MicroBatch(layout.batch, layout.images, layout.image_keys, *values)

    return [[filled(layout) for layout in forwards] for forwards in layouts]


def gather_tokens(layouts: Sequence[Sequence[MicroLayout]], values: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """float32 [tokens of the step], from float32 [N] of each forward of each rank."""
    tokens = np.concatenate([layout.batch.token for forwards in layouts for layout in forwards])
    flat = np.zeros(len(tokens), np.float32)
    flat[tokens] = np.concatenate([each for forwards in values for each in forwards])
    return flat
