"""What a rank publishes of its buckets: all of their bytes, or what changed since the version before.

Guarantees: changes are relative to the bytes that were sent as the version that they name; without these, or where the
changes are not smaller, the bucket is sent whole. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from evidence.delta import find_delta
from evidence.manifest import Bucket

if TYPE_CHECKING:
    from learner.zero.gather import Gathered


class SentWeights:
    """Keeps what was sent last, in the memory in which it was packed: a rank's share of the weights."""

    def __init__(self) -> None:
        self._version: int | None = None
        self._buckets: dict[int, np.ndarray] = {}

    def send(
        self, version: int, base: int | None, buckets: Iterable[Gathered], keep: bool
    ) -> Iterator[Bucket | np.ndarray]:
        """Yield header, bytes, header, bytes ... of the buckets of `version`.

        base: the version to which changes are wanted, None for all bytes. keep: whether changes to this one may be
        wanted later.
        """
        known = base is not None and base == self._version
        self._version = None  # a version that is not sent to its end is no base
        for number, total, packed in buckets:
            bucket, data = packed.bucket(number, total), packed.data
            before = self._buckets.get(number) if known else None
            found = find_delta(base, before, data) if base is not None and before is not None else None
            if keep:
                self._buckets[number] = data
            if found is not None:
                delta, data = found
                bucket = replace(bucket, delta=delta)
            yield bucket
            yield data
        if keep:
            self._version = version
