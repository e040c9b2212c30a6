"""Group packing: a shared prompt is run once, and every completion attends to it and to itself only.

Sequences over the same images share their longest common token prefix: for a group of G trajectories that is the whole
prompt, for supervised questions about one clip it is the video. A row is that prefix followed by its branches; rows are
padded to one length. Log-probs and gradients equal those of separate sequences (Prefix Grouper, arXiv 2506.05433).

Pure: numpy in, numpy out; learner/policy turns rows into tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evidence.types import Prompt


@dataclass(frozen=True)
class Row:
    """One prefix and its branches. T tokens, N scored tokens, K sequences.

    token_ids: int32 [T]; positions: int32 [3, T]; branch: int32 [T], 0 for the prefix, 1..K for the sequences.
    predict_from: int32 [N], the token whose hidden state predicts targets[n]; targets: int32 [N].
    sequence: int32 [N], the sequence (0..K-1) that a scored token belongs to.
    grids: int32 [n, 3], the images of the prefix, or its video; frame_counts: int32 [n], the frames of each.
    """

    token_ids: np.ndarray
    positions: np.ndarray
    branch: np.ndarray
    predict_from: np.ndarray
    targets: np.ndarray
    sequence: np.ndarray
    grids: np.ndarray
    frame_counts: np.ndarray


@dataclass(frozen=True)
class Batch:
    """Rows padded to a common T and stacked: B rows, N scored tokens in all.

    token_ids: int64 [B, T]; positions: int64 [3, B, T]; branch: int32 [B, T], -1 where padded.
    predict_from: int64 [N], into the flattened B x T; targets: int64 [N].
    grids: int64 [n, 3], frame_counts: int32 [n], of all rows in order.
    """

    token_ids: np.ndarray
    positions: np.ndarray
    branch: np.ndarray
    predict_from: np.ndarray
    targets: np.ndarray
    grids: np.ndarray
    frame_counts: np.ndarray


def common_prefix(prompts: Sequence[Prompt]) -> int:
    """How many leading token ids all prompts share."""
    first = prompts[0].token_ids
    shared = min(len(p.token_ids) for p in prompts)
    for prompt in prompts[1:]:
        differs = np.flatnonzero(first[:shared] != prompt.token_ids[:shared])
        shared = int(differs[0]) if len(differs) else shared
    return shared


def pack_row(prompts: Sequence[Prompt], completions: Sequence[np.ndarray]) -> Row:
    """One row of K sequences, prompts[k] followed by completions[k] (int32 [C_k], C_k >= 1), over the same images.

    Raises ValueError if images stand after the shared prefix, since they would have to be encoded again.
    """
    shared = common_prefix(prompts)
    if any(not np.array_equal(p.grids, prompts[0].grids) for p in prompts):
        raise ValueError("sequences of one row must show the same images")
    if len(prompts[0].grids) and any(_axes_differ(p.positions[:, shared:]) for p in prompts):
        raise ValueError("an image stands after the shared prefix")
    ids, positions, branch = [prompts[0].token_ids[:shared]], [prompts[0].positions[:, :shared]], [np.zeros(shared)]
    predict, targets, sequence = [], [], []
    start = shared
    for k, (prompt, completion) in enumerate(zip(prompts, completions)):
        tail = prompt.token_ids[shared:]
        # The last completion token predicts nothing, so it needs no row of its own.
        body = np.concatenate([tail, completion[:-1]])
        after = int(prompt.positions.max()) + 1
        ids.append(body)
        text = np.broadcast_to(np.arange(after, after + len(completion) - 1), (3, len(completion) - 1))
        positions.append(np.concatenate([prompt.positions[:, shared:], text], axis=1))
        branch.append(np.full(len(body), k + 1))
        first = start + len(tail) - 1 if len(tail) else shared - 1
        predict.append(np.concatenate([[first], start + len(tail) + np.arange(len(completion) - 1)]))
        targets.append(completion)
        sequence.append(np.full(len(completion), k))
        start += len(body)
    return Row(
        token_ids=np.concatenate(ids).astype(np.int32),
        positions=np.concatenate(positions, axis=1).astype(np.int32),
        branch=np.concatenate(branch).astype(np.int32),
        predict_from=np.concatenate(predict).astype(np.int32),
        targets=np.concatenate(targets).astype(np.int32),
        sequence=np.concatenate(sequence).astype(np.int32),
        grids=prompts[0].grids,
        frame_counts=prompts[0].frame_counts,
    )


def _axes_differ(positions: np.ndarray) -> bool:
    """Text has one position on all three axes; an image of more than one token has not."""
    return bool((positions != positions[:1]).any())


def stack_rows(rows: Sequence[Row]) -> Batch:
    length = max(len(row.token_ids) for row in rows)

    def padded(array: np.ndarray, value: int) -> np.ndarray:
        width = [(0, 0)] * (array.ndim - 1) + [(0, length - array.shape[-1])]
        return np.pad(array, width, constant_values=value)

    return Batch(
        token_ids=np.stack([padded(r.token_ids, 0) for r in rows]).astype(np.int64),
        positions=np.stack([padded(r.positions, 0) for r in rows], axis=1).astype(np.int64),
        branch=np.stack([padded(r.branch, -1) for r in rows]),
        predict_from=np.concatenate([r.predict_from + n * length for n, r in enumerate(rows)]).astype(np.int64),
        targets=np.concatenate([r.targets for r in rows]).astype(np.int64),
        grids=np.concatenate([r.grids for r in rows]).astype(np.int64),
        frame_counts=np.concatenate([r.frame_counts for r in rows]),
    )


def split_by_tokens(rows: Sequence[Row], ranks: int, budget: int) -> list[list[list[int]]]:
    """Indices of rows for each rank, in micro-batches of at most `budget` padded tokens (or one row, if longer).

    Every rank gets the same number of micro-batches, since ZeRO-3 gathers parameters in every forward: the longest
    rows are dealt first, each to the rank with the fewest tokens, and a rank short of micro-batches splits its
    largest. Raises ValueError if there are fewer rows than ranks.
    """
    if len(rows) < ranks:
        raise ValueError(f"{len(rows)} rows cannot be shared by {ranks} ranks: each rank needs one at least")
    load = [0] * ranks
    dealt: list[list[int]] = [[] for _ in range(ranks)]
    for index in sorted(range(len(rows)), key=lambda i: -len(rows[i].token_ids)):
        # A rank with nothing comes first, so that no rank goes without.
        rank = min(range(ranks), key=lambda r: (bool(dealt[r]) and load[r] + 1, load[r], r))
        dealt[rank].append(index)
        load[rank] += len(rows[index].token_ids)
    micro = [_fill([(i, len(rows[i].token_ids)) for i in part], budget) for part in dealt]
    most = min(max(map(len, micro)), min(map(len, dealt)))
    for rank, batches in enumerate(micro):
        while len(batches) < most:
            largest = max(batches, key=len)
            batches.remove(largest)
            batches += [largest[: len(largest) // 2], largest[len(largest) // 2 :]]
        if len(batches) > most:
            flat = [i for batch in batches for i in batch]
            cut = np.array_split(np.array(flat), most)
            micro[rank] = [list(map(int, part)) for part in cut]
    return micro


def _fill(items: list[tuple[int, int]], budget: int) -> list[list[int]]:
    """First fit over items sorted by length, counting padding: a batch costs its longest row times its rows."""
    batches: list[tuple[int, list[int]]] = []
    for index, length in items:
        for longest, batch in batches:
            if longest * (len(batch) + 1) <= budget:
                batch.append(index)
                break
        else:
            batches.append((length, [index]))
    return [batch for _, batch in batches]
