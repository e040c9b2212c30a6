"""Which recorded prompts the page embeds: some of each kind that is worth reading, in equal parts. Pure.

A candidate is a tuple of keys that are only worth showing together, as a prompt at several steps. Each ranking orders
candidates by one reason; they are taken in turn, the best of each, until the page is full.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Key(NamedTuple):
    """An entry: `run`, an index; `kind`, training or held-out; `step`; and `name`, the number of a group or the id of a
    held-out clip."""

    run: int
    kind: str
    step: int
    name: int | str


@dataclass(frozen=True)
class Facts:
    """What the choice depends on. sample: the prompt's id. spread, apart: as of an Entry."""

    key: Key
    sample: str
    spread: float
    apart: float | None = None


Candidate = tuple[Key, ...]
MOST_TOGETHER = 6  # of one prompt, so that it leaves room for others
EVENLY = "evenly over the steps"
SPREAD = "the largest spread of rewards"
APART = "referee and label differ most"
AGAIN = "the same prompt at several steps or in several runs"
CHANGED = "held-out, r_SER changed most"


def rankings(
    training: Sequence[Sequence[Facts]], heldout: Sequence[Sequence[Facts]]
) -> list[tuple[str, list[Candidate]]]:
    """(reason, candidates, best first), by run. training: of each run its groups, in order of their steps. heldout: of
    each run its held-out completions; those of one clip are a candidate."""
    ranked: list[tuple[str, list[Candidate]]] = [(AGAIN, seen_again([facts for run in training for facts in run]))]
    for run in training:
        apart = [facts for facts in run if facts.apart is not None]
        ranked += [
            (EVENLY, [(run[place].key,) for place in spread_out(len(run))]),
            (SPREAD, [(facts.key,) for facts in sorted(run, key=lambda facts: -facts.spread)]),
            (APART, [(facts.key,) for facts in sorted(apart, key=lambda facts: -(facts.apart or 0.0))]),
        ]
    for run in heldout:
        clips: dict[str, list[Facts]] = {}
        for facts in run:
            clips.setdefault(facts.sample, []).append(facts)
        pairs = sorted((clip for clip in clips.values() if len(clip) > 1), key=lambda clip: -clip[0].spread)
        ranked.append((CHANGED, [together(clip) for clip in pairs]))
    return [(reason, candidates) for reason, candidates in ranked if candidates]


def seen_again(groups: Sequence[Facts]) -> list[Candidate]:
    """The groups about one sample, for each sample with several; those of most steps first."""
    by_sample: dict[str, list[Facts]] = {}
    for facts in groups:
        by_sample.setdefault(facts.sample, []).append(facts)
    several = [same for same in by_sample.values() if len(same) > 1]
    several.sort(key=lambda same: (-len({facts.key.step for facts in same}), -max(facts.spread for facts in same)))
    return [together(same) for same in several]


def together(same: Sequence[Facts]) -> Candidate:
    """The keys of one prompt in order of their steps, at most MOST_TOGETHER: the first, the last, and others evenly."""
    in_order = sorted(same, key=lambda facts: (facts.key.step, facts.key.run))
    places = sorted(list(spread_out(len(in_order)))[:MOST_TOGETHER])
    return tuple(in_order[place].key for place in places)


def spread_out(count: int) -> Iterator[int]:
    """Each of 0 … count - 1 once: the last, the first, and then always near the middle of the widest gaps, so that the
    beginning of the sequence covers the whole range evenly."""
    seen: set[int] = set()
    pieces = 1
    while len(seen) < count:
        for piece in range(pieces, -1, -1):
            place = round(piece * (count - 1) / pieces)
            if place not in seen:
                seen.add(place)
                yield place
        pieces *= 2


def in_turn(ranked: Sequence[tuple[str, Sequence[Candidate]]]) -> Iterator[tuple[str, Candidate]]:
    """(reason, candidate) of the best of each ranking, then of the second best of each, and so on."""
    for place in range(max((len(candidates) for _, candidates in ranked), default=0)):
        for reason, candidates in ranked:
            if place < len(candidates):
                yield reason, candidates[place]


def chosen(ranked: Sequence[tuple[str, Sequence[Candidate]]], most: int) -> dict[Key, str]:
    """The keys to embed, at most `most`, each with the reason for which it was taken first. A candidate that does not
    fit as a whole is cut, unless less than two of its keys would be left."""
    taken: dict[Key, str] = {}
    for reason, candidate in in_turn(ranked):
        new = [key for key in candidate if key not in taken][: most - len(taken)]
        if new and len(candidate) > 1 and len(new) + sum(key in taken for key in candidate) < 2:
            continue
        taken |= dict.fromkeys(new, reason)
        if len(taken) >= most:
            break
    return taken


def count_by_reason(taken: Mapping[Key, str]) -> dict[str, int]:
    """How many keys were taken for each reason."""
    counts: dict[str, int] = {}
    for reason in taken.values():
        counts[reason] = counts.get(reason, 0) + 1
    return counts
