"""The budget for bytes of frames: leases reserve their bytes before anything is decoded (promise 6).

Guarantees:
- reserved bytes, bytes in use and idle bytes together never exceed the budget;
- leases are granted strictly in FIFO order, so a lease with bytes is older than any waiting lease: if P leases of the
  largest bound fit the budget, the P oldest unreleased leases are always granted eventually, whatever the sizes, and no
  lease waits for a younger one;
- idle bytes are evicted, least recently used first, before a lease has to wait.

A granted lease reserves its bound. Once its entry is decoded, it exchanges the reservation for the entry's actual bytes
(`settle`), and shares the entry with other leases that hold it. An entry released by all leases stays idle. Pure: no
clock, no threads, no Ray.
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
    """Grants leases and evicts entries. The callbacks `granted(lease)` and `evicted(key)` run inside the call that
    causes the grant or the eviction."""

    def __init__(self, total: int, granted: Callable[[int], None], evicted: Callable[[Hashable], None]):
        self.total = total
        self._granted, self._evicted = granted, evicted
        self._waiting: deque[tuple[int, int, Hashable | None]] = deque()
        self._reserved: dict[int, int] = {}
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()  # least recently used first

    @property
    def live(self) -> int:
        """Bytes reserved or in use, which cannot be evicted."""
        return sum(self._reserved.values()) + sum(e.bytes for e in self._entries.values() if e.holders)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def ask(self, lease: int, bound: int, key: Hashable | None = None) -> None:
        """Request up to `bound` bytes; granted now or later. If the entry `key` exists when the lease is granted, the
        lease holds it and reserves nothing. Raises ValueError if `bound` exceeds the whole budget."""
        if bound > self.total:
            raise ValueError(f"{bound} bytes requested, above the whole budget of {self.total}")
        self._waiting.append((lease, bound, key))
        self._grant()

    def try_now(self, lease: int, bound: int) -> bool:
        """Request `bound` bytes for prefetching. Returns False, without queueing, unless they are available now and no
        lease waits."""
        if self._waiting or self.live + bound > self.total:
            return False
        self._reserve(lease, bound)
        return True

    def settle(self, lease: int, key: Hashable, size: int) -> None:
        """Exchange the lease's reservation for the entry `key` of `size` bytes, at most its bound. A lease that got the
        entry when it was granted has no reservation; then nothing changes."""
        if lease not in self._reserved:
            return
        bound = self._reserved.pop(lease)
        if size > bound:
            raise ValueError(f"{key}: {size} bytes, above the {bound} reserved")
        self._entries.setdefault(key, _Entry(size)).holders.add(lease)
        self.touch(key)
        self._grant()

    def release(self, lease: int) -> None:
        """Release the lease, whether it waits, has a reservation or holds an entry."""
        self._waiting = deque(request for request in self._waiting if request[0] != lease)
        self._reserved.pop(lease, None)
        for entry in self._entries.values():
            entry.holders.discard(lease)
        self._grant()

    def touch(self, key: Hashable) -> None:
        """Mark the entry `key`, if it exists, as most recently used, because it will be needed soon."""
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
                self._reserve(lease, bound)
            else:  # the entry's bytes are already counted, as in use or as idle
                entry.holders.add(lease)
                self.touch(key)
            self._granted(lease)

    def _reserve(self, lease: int, bound: int) -> None:
        self._reserved[lease] = bound
        excess = sum(self._reserved.values()) + sum(e.bytes for e in self._entries.values()) - self.total
        for key in [key for key, entry in self._entries.items() if not entry.holders]:
            if excess <= 0:
                return
            excess -= self._entries.pop(key).bytes
            self._evicted(key)
