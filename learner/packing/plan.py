"""The plan: which sequences lie in which row, which rows make a forward, and which rank runs it. Pure.

Guarantees: every sequence is whole, in one row, once; no forward is above the token budget, padding counted; every rank
runs the same number of forwards, since ZeRO-3 gathers parameters in each; the same lengths give the same plan.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from learner.packing.units import Unit
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
IDLE: Forward = ((),)


def make_plan(units: Sequence[Unit], ranks: int, packing: PackingConfig) -> list[list[Forward]]:
    """Each rank's forwards. Raises ValueError if a sequence alone is above the token budget."""
    budget = packing.token_budget
    for number, unit in enumerate(units):
        if unit.longest > budget:
            raise ValueError(f"unit {number} has a sequence of {unit.longest} tokens, above the budget of {budget}")
    pieces = [piece for number, unit in enumerate(units) for piece in _pieces(number, unit, packing)]
    return _deal(_rows(pieces, packing), ranks, budget)


def _pieces(number: int, unit: Unit, packing: PackingConfig) -> list[Piece]:
    """`prefix`: as few as the budget allows, each with the prefix; else one a sequence."""
    prefix, lengths = len(unit.token_ids), [len(branch) for branch in unit.branches]
    together = packing.token_budget - prefix if packing.mode == "prefix" else 0
    return [
        Piece(number, tuple(sorted(branches)), prefix + sum(lengths[b] for b in branches))
        for branches in first_fit(lengths, together)
    ]


def _rows(pieces: Sequence[Piece], packing: PackingConfig) -> list[Row]:
    """Longest first. Rows are as long as the longest piece has to be, since a dense mask grows with their square, or
    up to a quarter longer where that leaves less of them empty."""
    lengths = [piece.tokens for piece in pieces]
    longest = max(lengths)
    capacities = [0]
    if packing.mode != "none":
        capacities = [min(packing.token_budget, longest + longest * step // 32) for step in range(9)]

    def padded(rows: list[list[int]]) -> int:
        return len(rows) * max(sum(lengths[i] for i in row) for row in rows)

    rows = min((first_fit(lengths, capacity) for capacity in capacities), key=padded)
    return sorted((tuple(pieces[i] for i in row) for row in rows), key=_tokens, reverse=True)


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Bins of indices, by first fit, longest first; what is longer than `capacity` has a bin of its own."""
    bins: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        found = next((n for n, free in enumerate(room) if lengths[index] <= free), None)
        if found is None:
            bins.append([index])
            room.append(capacity - lengths[index])
        else:
            bins[found].append(index)
            room[found] -= lengths[index]
    return bins


def _deal(rows: Sequence[Row], ranks: int, budget: int) -> list[list[Forward]]:
    """`rows`: longest first. As few forwards a rank as the budget allows, all as small as that number of them can be.

    ZeRO-3 keeps ranks in step, so a forward costs what the costliest of the ranks has in it: forwards of like cost are
    run at the same time, the costliest first.
    """
    rounds = -(-len(_stack(rows, budget)) // ranks)
    longest = _tokens(rows[0])
    caps = range(longest, budget + 1)
    least = caps[bisect_left(caps, True, key=lambda cap: len(_stack(rows, cap)) <= rounds * ranks)]
    forwards = _stack(rows, least)
    while len(forwards) < rounds * ranks and (most := max(forwards, key=len))[1:]:
        forwards.remove(most)
        forwards += [most[: len(most) // 2], most[len(most) // 2 :]]
    forwards.sort(key=cost, reverse=True)
    forwards += [IDLE] * (rounds * ranks - len(forwards))
    return [forwards[rank::ranks] for rank in range(ranks)]


def _stack(rows: Sequence[Row], cap: int) -> list[Forward]:
    """Rows, longest first, in as few forwards of at most `cap` tokens as there can be."""
    forwards: list[list[Row]] = []
    for row in rows:
        if forwards and _tokens(forwards[-1][0]) * (len(forwards[-1]) + 1) <= cap:
            forwards[-1].append(row)
        else:
            forwards.append([row])
    return [tuple(forward) for forward in forwards]


def cost(forward: Forward) -> int:
    """Tokens that are run, padding counted."""
    return len(forward) * max(map(_tokens, forward))


def _tokens(row: Row) -> int:
    return sum(piece.tokens for piece in row)
