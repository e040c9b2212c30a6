"""Verdicts already given, by everything that could change them.

Guarantees: two questions share an entry only if the referee's weights, the text it reads, the pixels it sees and the
reading of its answer are the same; at most `capacity` entries are kept, the least recently used one goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(frozen=True)
class VerdictKey:
    """`referee`: digest of weights and tokenizer. `text`: the turn's texts as put to it, which hold question, phrase
    and frame time. `pixels`: frame key, frame index, drawn box, crop size and margin, which decide both images."""

    referee: str
    wording: str
    kind: str
    reading: str
    text: tuple[str, ...]
    pixels: tuple[str, int, tuple[int, int, int, int], tuple[int, int], float]


class VerdictCache:
    """A bounded map from VerdictKey to a reading in [0, 1]."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.hits = 0
        self.misses = 0
        self._entries: OrderedDict[VerdictKey, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: VerdictKey) -> float | None:
        value = self._entries.get(key)
        if value is None:
            self.misses += 1
            return None
        self.hits += 1
        self._entries.move_to_end(key)
        return value

    def put(self, key: VerdictKey, value: float) -> None:
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > self.capacity:
            self._entries.popitem(last=False)
