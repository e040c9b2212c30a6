"""Faults of a file that is scored all the same: each kind is counted, with the first place where it was found."""

from __future__ import annotations

from typing import Any


class Faults:
    """The kinds of faults in the order in which they were first found."""

    def __init__(self) -> None:
        self._count: dict[str, int] = {}
        self._first: dict[str, str] = {}

    def add(self, reason: str, place: str) -> None:
        """reason: what is wrong, and what follows from it. place: where, such as `sample 3`."""
        self._first.setdefault(reason, place)
        self._count[reason] = self._count.get(reason, 0) + 1

    def __bool__(self) -> bool:
        return bool(self._count)

    def report(self) -> list[dict[str, Any]]:
        """One object for each kind: reason, count, and first place."""
        return [{"reason": why, "count": n, "first": self._first[why]} for why, n in self._count.items()]

    def first(self) -> str:
        """The most frequent kind in one line, for an error message."""
        reason = max(self._count, key=lambda why: self._count[why])
        return f"{self._first[reason]}: {reason}"
