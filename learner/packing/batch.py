"""Batches: the arrays of one forward, and where its images are placed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from learner.packing.plan import Forward
from learner.packing.shared_prefix import Branch, ImageSet, Unit


@dataclass(frozen=True)
class Batch:
    """B rows padded to a common length T, with N scored tokens of K sequences, and S image sets shown at M places.

    token_ids: int64 [B, T]; positions: int64 [3, B, T].
    segment: int32 [B, T], index of the token's piece in its row; branch: int32 [B, T], 0 in the piece's prefix, 1, 2 …
        in the sequences after it. Both are -1 on padding. learner/model/attention says which tokens attend to which.
    predict_from: int64 [N], index into the flattened B x T of the token whose hidden state predicts targets[n].
    targets: int64 [N].
    token: int64 [N], index of the scored token in the step, counting units, their sequences and their tokens in order.
    sequence: int64 [N], the token's sequence, 0..K-1.
    grids: int64 [n, 3], frame_counts: int32 [n], of the images of all sets in order; set_sizes: int64 [S], images per
        set.
    image_of: int64 [M], the set shown at each place, in the order of the rows.
    kept: int64 [N, K], the ids from which each target was drawn, padded with -1; None for the whole vocabulary.
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
    kept: np.ndarray | None = None


def first_tokens(units: Sequence[Unit]) -> list[list[int]]:
    """For each branch of each unit, the index in the step of its first scored token."""
    counts = [len(branch.targets) for unit in units for branch in unit.branches]
    starts = iter(accumulate(counts, initial=0))
    return [[next(starts) for _ in unit.branches] for unit in units]


def make_batch(
    units: Sequence[Unit], starts: Sequence[Sequence[int]], forward: Forward, images_once: bool
) -> tuple[Batch, tuple[ImageSet, ...]]:
    """The arrays of `forward`, and the image sets to encode for it. `starts`: first_tokens(units).

    images_once: encode sets with equal keys once and place them wherever they are shown; else once for each place.
    """
    length = max(1, *(sum(piece.tokens for piece in row) for row in forward))
    shape = len(forward), length
    token_ids, positions = np.zeros(shape, np.int64), np.zeros((3, *shape), np.int64)
    segment, branch = np.full(shape, -1, np.int32), np.full(shape, -1, np.int32)
    predict_from, targets, token, sequence = ([np.zeros(0, np.int64)] for _ in range(4))
    placed: list[ImageSet] = []
    kept: list[np.ndarray | None] = []
    sequences = 0
    for b, row in enumerate(forward):
        start = 0
        for number, piece in enumerate(row):
            unit, span = units[piece.unit], slice(start, start + piece.tokens)
            branches = [unit.branches[k] for k in piece.branches]
            token_ids[b, span] = np.concatenate([unit.token_ids, *(s.token_ids for s in branches)])
            positions[:, b, span] = np.concatenate([unit.positions, *(s.positions for s in branches)], axis=1)
            segment[b, span] = number
            branch[b, span] = np.repeat(range(len(branches) + 1), [len(unit.token_ids), *map(len, branches)])
            predict_from.append(b * length + start + _predict_from(len(unit.token_ids), branches))
            targets += [s.targets for s in branches]
            kept += [s.kept for s in branches]
            token += [starts[piece.unit][k] + np.arange(len(unit.branches[k].targets)) for k in piece.branches]
            sequence += [np.full(len(s.targets), sequences + k) for k, s in enumerate(branches)]
            placed += unit.images
            start, sequences = span.stop, sequences + len(branches)
    sets, image_of = _distinct(placed) if images_once else (placed, range(len(placed)))
    batch = Batch(
        token_ids=token_ids,
        positions=positions,
        segment=segment,
        branch=branch,
        predict_from=np.concatenate(predict_from),
        targets=np.concatenate(targets).astype(np.int64),
        token=np.concatenate(token),
        sequence=np.concatenate(sequence),
        grids=np.concatenate([np.zeros((0, 3), np.int64), *(s.grids for s in sets)]).astype(np.int64),
        frame_counts=np.concatenate([np.zeros(0, np.int32), *(s.frame_counts for s in sets)]),
        set_sizes=np.array([len(s.grids) for s in sets], np.int64),
        image_of=np.array(image_of, np.int64),
        kept=_padded(kept),
    )
    return batch, tuple(sets)


def _predict_from(prefix: int, branches: Sequence[Branch]) -> np.ndarray:
    """Positions of the tokens that predict the branches' targets, in a piece with a prefix of `prefix` tokens."""
    positions, start = [], prefix
    for branch in branches:
        # The last tokens of prefix and branch. Only the first of them can be in the prefix.
        before = len(branch) - len(branch.targets) + np.arange(len(branch.targets))
        positions.append(np.where(before < 0, prefix + before, start + before))
        start += len(branch)
    return np.concatenate(positions)


def _padded(kept: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """The kept sets of all targets, int64 [N, K], with the K of the largest. Raises ValueError if only some have one:
    a distribution over the whole vocabulary is no kept set."""
    given = [sets for sets in kept if sets is not None]
    if not given:
        return None
    if len(given) < len(kept):
        raise ValueError("some completions of a step were drawn from kept sets, and others were not")
    width = max(sets.shape[1] for sets in given)
    wide = [np.pad(sets, ((0, 0), (0, width - sets.shape[1])), constant_values=-1) for sets in given]
    return np.concatenate(wide).astype(np.int64)


def _distinct(placed: Sequence[ImageSet]) -> tuple[list[ImageSet], list[int]]:
    """The distinct sets, and the index of the set shown at each place."""
    sets = {s.key: s for s in placed}
    index = {key: n for n, key in enumerate(sets)}
    return list(sets.values()), [index[s.key] for s in placed]


def waste(batches: Sequence[Batch]) -> float:
    """The share of padding among all tokens that are run."""
    return sum(int((batch.branch < 0).sum()) for batch in batches) / sum(batch.branch.size for batch in batches)
