"""Bytes of frames: who may have how many, decided before anything is decoded (promise 6).

Guarantees:
- what is promised, in use and kept idle never exceeds the budget;
- leases are granted strictly in the order in which they were asked for, so whoever holds bytes is older than whoever
  waits: if P leases of the largest bound fit the budget, the P oldest unreleased ones always end up granted, however
  the sizes fall, and nobody waits for a younger one;
- idle bytes are evicted, least recently used first, before anybody waits.

A lease is promised its bound when granted, trades it for the bytes of its entry when that is decoded (`settle`), and
shares the entry with others that hold it. Released by all, an entry stays idle. Pure: no clock, no threads, no Ray.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field


@dataclass
class _Entry:
    bytes: int
    holders: set[int] = field(default_factory=set)


class Budget:
    """`granted(lease)` and `evicted(key)` are called as it happens, from within the call that brings it about."""

    def __init__(self, total: int, granted: Callable[[int], None], evicted: Callable[[Hashable], None]):
        self.total = total
        self._granted, self._evicted = granted, evicted
        self._waiting: deque[tuple[int, int, Hashable | None]] = deque()
        self._promised: dict[int, int] = {}
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()  # least recently used first

    @property
    def live(self) -> int:
        """Bytes promised or in use: what cannot be evicted."""
        return sum(self._promised.values()) + sum(e.bytes for e in self._entries.values() if e.holders)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def ask(self, lease: int, bound: int, key: Hashable | None = None) -> None:
        """For up to `bound` bytes; granted at once or later. If the entry `key` is there then, the lease holds it and
        is promised nothing. Raises ValueError for what never could be."""
        if bound > self.total:
            raise ValueError(f"{bound} bytes asked for, {self.total} is all there is")
        self._waiting.append((lease, bound, key))
        self._grant()

    def try_now(self, lease: int, bound: int) -> bool:
        """The same, ahead of need: granted only if that makes nobody wait."""
        if self._waiting or self.live + bound > self.total:
            return False
        self._promise(lease, bound)
        return True

    def settle(self, lease: int, key: Hashable, size: int) -> None:
        """The lease holds the entry `key` of `size` bytes, at most its bound, instead of its promise, if it has one."""
        if lease not in self._promised:  # it holds the entry since it was granted
            return
        bound = self._promised.pop(lease)
        if size > bound:
            raise ValueError(f"{key}: {size} bytes, of at most {bound} promised")
        self._entries.setdefault(key, _Entry(size)).holders.add(lease)
        self.touch(key)
        self._grant()

    def release(self, lease: int) -> None:
        """In whatever state it is."""
        self._waiting = deque(asked for asked in self._waiting if asked[0] != lease)
        self._promised.pop(lease, None)
        for entry in self._entries.values():
            entry.holders.discard(lease)
        self._grant()

    def touch(self, key: Hashable) -> None:
        """The entry, if there is one, will be needed soon: evict others first."""
        if key in self._entries:
            self._entries.move_to_end(key)

    def _grant(self) -> None:
        while self._waiting:
            lease, bound, key = self._waiting[0]
            entry = self._entries.get(key)
            if entry is None and self.live + bound > self.total:
                return
            self._waiting.popleft()
            if entry is None:
                self._promise(lease, bound)
            else:  # whose bytes are within the total, in use or idle
                entry.holders.add(lease)
                self.touch(key)
            self._granted(lease)

    def _promise(self, lease: int, bound: int) -> None:
        self._promised[lease] = bound
        excess = sum(self._promised.values()) + sum(e.bytes for e in self._entries.values()) - self.total
        for key in [key for key, entry in self._entries.items() if not entry.holders]:
            if excess <= 0:
                return
            excess -= self._entries.pop(key).bytes
            self._evicted(key)
