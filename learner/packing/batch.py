"""Batches: the arrays of one forward, and which images it shows where. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from learner.packing.plan import Forward
from learner.packing.shared_prefix import Branch, ImageSet, Unit


@dataclass(frozen=True)
class Batch:
    """B rows padded to a common T, with N scored tokens of K sequences, and S image sets standing at M places.

    token_ids: int64 [B, T]; positions: int64 [3, B, T].
    segment: int32 [B, T], which of a row's pieces a token is of; branch: int32 [B, T], 0 in the piece's prefix, 1 and
    up in the sequences behind it. Both -1 where padded. What sees what: learner/model/attention.
    predict_from: int64 [N], into the flattened B x T: the token whose hidden state predicts targets[n]; targets: [N].
    token: int64 [N], the scored token's index in the step: units, their sequences and their tokens in the given order.
    sequence: int64 [N], the sequence (0..K-1) that it is of.
    grids: int64 [n, 3], frame_counts: int32 [n], of the sets' images in order; set_sizes: int64 [S], images of each.
    image_of: int64 [M], the set that stands at each place, in the order of the rows.
    """

    token_ids: np.ndarray
    positions: np.ndarray
    segment: np.ndarray
    branch: np.ndarray
    predict_from: np.ndarray
    targets: np.ndarray
    token: np.ndarray
    sequence: np.ndarray
    grids: np.ndarray
    frame_counts: np.ndarray
    set_sizes: np.ndarray
    image_of: np.ndarray


def first_tokens(units: Sequence[Unit]) -> list[list[int]]:
    """Index in the step of the first scored token of each branch of each unit."""
    counts = [len(branch.targets) for unit in units for branch in unit.branches]
    starts = iter(accumulate(counts, initial=0))
    return [[next(starts) for _ in unit.branches] for unit in units]


def make_batch(
    units: Sequence[Unit], starts: Sequence[Sequence[int]], forward: Forward, images_once: bool
) -> tuple[Batch, tuple[ImageSet, ...]]:
    """The arrays of `forward`, and the image sets to be encoded for it. `starts`: first_tokens(units).

    images_once: sets of one key are encoded once and placed wherever they are shown, else once for every place.
    """
    length = max(1, *(sum(piece.tokens for piece in row) for row in forward))
    shape = len(forward), length
    token_ids, positions = np.zeros(shape, np.int64), np.zeros((3, *shape), np.int64)
    segment, branch = np.full(shape, -1, np.int32), np.full(shape, -1, np.int32)
    predict_from, targets, token, sequence = ([np.zeros(0, np.int64)] for _ in range(4))
    placed: list[ImageSet] = []
    sequences = 0
    for b, row in enumerate(forward):
        start = 0
        for number, piece in enumerate(row):
            unit, here = units[piece.unit], slice(start, start + piece.tokens)
            branches = [unit.branches[k] for k in piece.branches]
            token_ids[b, here] = np.concatenate([unit.token_ids, *(each.token_ids for each in branches)])
            positions[:, b, here] = np.concatenate([unit.positions, *(each.positions for each in branches)], axis=1)
            segment[b, here] = number
            branch[b, here] = np.repeat(range(len(branches) + 1), [len(unit.token_ids), *map(len, branches)])
            predict_from.append(b * length + start + _predict_from(len(unit.token_ids), branches))
            targets += [each.targets for each in branches]
            token += [starts[piece.unit][k] + np.arange(len(unit.branches[k].targets)) for k in piece.branches]
            sequence += [np.full(len(each.targets), sequences + k) for k, each in enumerate(branches)]
            placed += unit.images
            start, sequences = here.stop, sequences + len(branches)
    sets, image_of = _once(placed) if images_once else (placed, range(len(placed)))
    batch = Batch(
        token_ids=token_ids,
        positions=positions,
        segment=segment,
        branch=branch,
        predict_from=np.concatenate(predict_from),
        targets=np.concatenate(targets).astype(np.int64),
        token=np.concatenate(token),
        sequence=np.concatenate(sequence),
        grids=np.concatenate([np.zeros((0, 3), np.int64), *(each.grids for each in sets)]).astype(np.int64),
        frame_counts=np.concatenate([np.zeros(0, np.int32), *(each.frame_counts for each in sets)]),
        set_sizes=np.array([len(each.grids) for each in sets], np.int64),
        image_of=np.array(image_of, np.int64),
    )
    return batch, tuple(sets)


def _predict_from(prefix: int, branches: Sequence[Branch]) -> np.ndarray:
    """Where the tokens that predict the branches' targets stand in a piece with a prefix of `prefix` tokens."""
    found, start = [], prefix
    for branch in branches:
        # The last tokens of prefix and branch: only the first of them may be the prefix's.
        before = len(branch) - len(branch.targets) + np.arange(len(branch.targets))
        found.append(np.where(before < 0, prefix + before, start + before))
        start += len(branch)
    return np.concatenate(found)


def _once(placed: Sequence[ImageSet]) -> tuple[list[ImageSet], list[int]]:
    """Each set once, and which of them stands at each place."""
    sets = {each.key: each for each in placed}
    index = {key: n for n, key in enumerate(sets)}
    return list(sets.values()), [index[each.key] for each in placed]


def waste(batches: Sequence[Batch]) -> float:
    """The share of padding among all the tokens that are run."""
    return sum(int((batch.branch < 0).sum()) for batch in batches) / sum(batch.branch.size for batch in batches)
