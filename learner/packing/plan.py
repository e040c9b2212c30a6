"""The plan: which sequences lie in which row, which rows make a forward, and which rank runs it. Pure.

Guarantees: every sequence is whole, in one row, once; no forward is above the token budget, padding counted; every rank
runs the same number of forwards, since ZeRO-3 gathers parameters in each; the same lengths give the same plan.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from learner.packing.shared_prefix import Unit
from learner.settings import PackingConfig


@dataclass(frozen=True)
class Piece:
    """What stands together in a row: the prefix of unit number `unit`, then some of its branches. `tokens`: of both."""

    unit: int
    branches: tuple[int, ...]
    tokens: int


Row = tuple[Piece, ...]
# One forward: rows that are padded to the longest of them. A rank that has nothing to run has one empty row.
Forward = tuple[Row, ...]
# The pieces of one forward, as indices.
Bin = list[int]


def make_plan(units: Sequence[Unit], ranks: int, packing: PackingConfig) -> list[list[Forward]]:
    """Each rank's forwards. Raises ValueError if a sequence alone is above the token budget."""
    budget = packing.token_budget
    for number, unit in enumerate(units):
        if unit.longest > budget:
            raise ValueError(f"unit {number} has a sequence of {unit.longest} tokens, above the budget of {budget}")
    pieces = [piece for number, unit in enumerate(units) for piece in _pieces(number, unit, packing)]
    lengths = [piece.tokens for piece in pieces]
    if packing.mode == "none":  # a row each, padded to the longest
        parts = _deal(lengths, ranks, budget, stack, lambda own: len(own) * max(own))
        return [[tuple((pieces[i],) for i in own) or ((),) for own in part] for part in parts]
    # One row, end to end: what a token does not see costs nothing (learner/model/attention), and nothing is padded.
    parts = _deal(lengths, ranks, budget, first_fit, sum)
    return [[(tuple(pieces[i] for i in own),) for own in part] for part in parts]


def _pieces(number: int, unit: Unit, packing: PackingConfig) -> list[Piece]:
    """`prefix`: as few as the budget allows, each with the prefix; else one a sequence."""
    prefix, lengths = len(unit.token_ids), [len(branch) for branch in unit.branches]
    together = packing.token_budget - prefix if packing.mode == "prefix" else 0
    return [
        Piece(number, tuple(sorted(branches)), prefix + sum(lengths[b] for b in branches))
        for branches in first_fit(lengths, together)
    ]


def first_fit(lengths: Sequence[int], capacity: int) -> list[Bin]:
    """Bins by first fit, longest first; what is longer than `capacity` has a bin of its own."""
    bins: list[Bin] = []
    room: list[int] = []
    for index in _longest_first(lengths):
        found = next((n for n, free in enumerate(room) if lengths[index] <= free), None)
        if found is None:
            bins.append([index])
            room.append(capacity - lengths[index])
        else:
            bins[found].append(index)
            room[found] -= lengths[index]
    return bins


def stack(lengths: Sequence[int], capacity: int) -> list[Bin]:
    """Bins of like lengths, longest first, of at most `capacity` when all are as long as the longest."""
    bins: list[Bin] = []
    for index in _longest_first(lengths):
        if bins and lengths[bins[-1][0]] * (len(bins[-1]) + 1) <= capacity:
            bins[-1].append(index)
        else:
            bins.append([index])
    return bins


def _longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda i: -lengths[i])


def _deal(
    lengths: Sequence[int],
    ranks: int,
    budget: int,
    fill: Callable[[Sequence[int], int], list[Bin]],
    cost: Callable[[list[int]], int],
) -> list[list[Bin]]:
    """Each rank's bins: as few a rank as the budget allows, all as small as that number of them can be. `cost`: tokens
    that are run for pieces of these lengths, padding counted.

    ZeRO-3 keeps ranks in step, so a forward costs what the costliest of the ranks has in it: forwards of like cost are
    run at the same time, the costliest first.
    """
    rounds = -(-len(fill(lengths, budget)) // ranks)
    capacities = range(max(lengths), budget + 1)
    least = bisect_left(capacities, True, key=lambda capacity: len(fill(lengths, capacity)) <= rounds * ranks)
    bins = fill(lengths, capacities[least])
    while len(bins) < rounds * ranks and (most := max(bins, key=len))[1:]:
        bins.remove(most)
        bins += [most[: len(most) // 2], most[len(most) // 2 :]]
    bins.sort(key=lambda own: cost([lengths[i] for i in own]), reverse=True)
    bins += [[] for _ in range(rounds * ranks - len(bins))]
    return [bins[rank::ranks] for rank in range(ranks)]
