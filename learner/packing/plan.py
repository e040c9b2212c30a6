"""The packing plan: assigns sequences to rows, rows to forwards, and forwards to ranks. Pure.

Guarantees: every sequence is in exactly one row, whole; no forward exceeds the token budget, padding included; every
rank runs the same number of forwards, since ZeRO-3 gathers parameters in each; the same lengths give the same plan.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from learner.packing.shared_prefix import Unit
from learner.settings import PackingConfig


@dataclass(frozen=True)
class Piece:
    """Part of a row: the prefix of unit number `unit`, then some of its branches. `tokens`: length of all of it."""

    unit: int
    branches: tuple[int, ...]
    tokens: int


Row = tuple[Piece, ...]
# One forward: rows padded to the longest of them. A rank with nothing to run has one empty row.
Forward = tuple[Row, ...]
# The pieces of one forward, as indices.
Bin = list[int]


def make_plan(units: Sequence[Unit], ranks: int, packing: PackingConfig) -> list[list[Forward]]:
    """The forwards of each rank. Raises ValueError if a single sequence exceeds the token budget."""
    budget = packing.token_budget
    for number, unit in enumerate(units):
        if unit.longest > budget:
            raise ValueError(f"unit {number} has a sequence of {unit.longest} tokens, above the budget of {budget}")
    pieces = [piece for number, unit in enumerate(units) for piece in _pieces(number, unit, packing)]
    lengths = [piece.tokens for piece in pieces]
    if packing.mode == "none":  # one row per sequence, padded to the longest
        parts = _deal(lengths, ranks, budget, stack, lambda bin_lengths: len(bin_lengths) * max(bin_lengths))
        return [[tuple((pieces[i],) for i in indices) or ((),) for indices in part] for part in parts]
    # One row, end to end, without padding. Masked attention costs nothing (learner/model/attention).
    parts = _deal(lengths, ranks, budget, first_fit, sum)
    return [[(tuple(pieces[i] for i in indices),) for indices in part] for part in parts]


def _pieces(number: int, unit: Unit, packing: PackingConfig) -> list[Piece]:
    """The pieces of a unit. `prefix`: as few as the budget allows, each with the prefix; else one per sequence."""
    prefix, lengths = len(unit.token_ids), [len(branch) for branch in unit.branches]
    capacity = packing.token_budget - prefix if packing.mode == "prefix" else 0
    return [
        Piece(number, tuple(sorted(branches)), prefix + sum(lengths[b] for b in branches))
        for branches in first_fit(lengths, capacity)
    ]


def first_fit(lengths: Sequence[int], capacity: int) -> list[Bin]:
    """Bins by first fit, longest first. A length above `capacity` gets its own bin."""
    bins: list[Bin] = []
    free: list[int] = []
    for index in _longest_first(lengths):
        fitting = next((n for n, left in enumerate(free) if lengths[index] <= left), None)
        if fitting is None:
            bins.append([index])
            free.append(capacity - lengths[index])
        else:
            bins[fitting].append(index)
            free[fitting] -= lengths[index]
    return bins


def stack(lengths: Sequence[int], capacity: int) -> list[Bin]:
    """Bins of similar lengths, longest first, of at most `capacity` once all are padded to the longest of the bin."""
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
    """The bins of each rank: as few per rank as the budget allows, with the smallest capacity that suffices for that
    number. `cost`: tokens run for pieces of these lengths, padding included.

    ZeRO-3 runs ranks in lockstep, so a round of forwards takes as long as its costliest one. Forwards of similar cost
    therefore run in the same round, the costliest first.
    """
    rounds = -(-len(fill(lengths, budget)) // ranks)
    capacities = range(max(lengths), budget + 1)
    least = bisect_left(capacities, True, key=lambda capacity: len(fill(lengths, capacity)) <= rounds * ranks)
    bins = fill(lengths, capacities[least])
    while len(bins) < rounds * ranks and (most := max(bins, key=len))[1:]:
        bins.remove(most)
        bins += [most[: len(most) // 2], most[len(most) // 2 :]]
    bins.sort(key=lambda indices: cost([lengths[i] for i in indices]), reverse=True)
    bins += [[] for _ in range(rounds * ranks - len(bins))]
    return [bins[rank::ranks] for rank in range(ranks)]
