"""The transport format of a weight set: buckets of tensors as flat bytes, and a manifest that names all of them.

Guarantees (promise 7): `unpack_bucket` returns tensors bit-equal to those that were packed, or raises; they are
views of the received bytes, never copies. bfloat16, which numpy lacks, is carried as uint16 of the same bits; no
weight is a true uint16, so the dtype is unambiguous.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import xxhash

# Tensors start at multiples of this, so that a view of any dtype is aligned.
ALIGNMENT = 64
# The numpy dtype that carries the bits of a dtype numpy lacks, and the reverse mapping.
CARRIER = {"bfloat16": "uint16"}
CARRIED = {"uint16": "bfloat16"}


class CorruptBucket(RuntimeError):
    """A bucket whose bytes differ from those that were packed: it must never be loaded."""


@dataclass(frozen=True)
class TensorEntry:
    """One tensor's place in its bucket, in bytes. `dtype` is the tensor's own ("bfloat16", "float32")."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int
    nbytes: int


@dataclass(frozen=True)
class Delta:
    """The header of what changed in a bucket since weights `base`: how many words of 16 bits, and the size and the XXH3
    checksum of the bytes that encode them (evidence/delta.py)."""

    base: int
    words: int
    nbytes: int
    checksum: int


@dataclass(frozen=True)
class Bucket:
    """The header of one bucket: its index in the weight set and the number of buckets in that, its tensors, its size
    and the XXH3 checksum of its bytes. delta: set if only what changed is sent, in place of these bytes."""

    index: int
    total: int
    entries: tuple[TensorEntry, ...]
    nbytes: int
    checksum: int
    delta: Delta | None = None


@dataclass(frozen=True)
class Manifest:
    """A whole weight set: `buckets` in order of their index, from 0 without gaps."""

    version: int
    buckets: tuple[Bucket, ...]

    @property
    def names(self) -> frozenset[str]:
        return frozenset(entry.name for bucket in self.buckets for entry in bucket.entries)

    @property
    def nbytes(self) -> int:
        return sum(bucket.nbytes for bucket in self.buckets)

    @property
    def sent(self) -> int:
        """The bytes that are sent."""
        return sum((bucket.delta or bucket).nbytes for bucket in self.buckets)

    @property
    def base(self) -> int | None:
        """The version whose bytes are needed to make this one, None if all of it is sent."""
        return next((bucket.delta.base for bucket in self.buckets if bucket.delta is not None), None)


@dataclass(frozen=True)
class Packed:
    """Tensors laid out in `data`, uint8 [nbytes], without a checksum yet. The bytes between tensors are 0."""

    entries: tuple[TensorEntry, ...]
    data: np.ndarray

    @classmethod
    def room_for(
        cls, tensors: Mapping[str, tuple[tuple[int, ...], str]], empty: Callable[[int], np.ndarray] | None = None
    ) -> Packed:
        """Room for tensors of these shapes and dtypes, whose bytes are to be written through `views`. `empty`: makes
        the array of so many bytes, np.empty by default."""
        entries, offset = [], 0
        for name, (shape, dtype) in tensors.items():
            nbytes = math.prod(shape) * np.dtype(CARRIER.get(dtype, dtype)).itemsize
            entries.append(TensorEntry(name, tuple(shape), dtype, offset, nbytes))
            offset += -(-nbytes // ALIGNMENT) * ALIGNMENT
        data = np.empty(offset, np.uint8) if empty is None else empty(offset)
        for entry, end in zip(entries, [*(entry.offset for entry in entries[1:]), offset]):
            data[entry.offset + entry.nbytes : end] = 0
        return cls(tuple(entries), data)

    @classmethod
    def of(cls, tensors: Mapping[str, np.ndarray]) -> Packed:
        """Copies of `tensors`; bfloat16 tensors are passed as their uint16 view."""
        dtypes = {name: CARRIED.get(tensor.dtype.name, tensor.dtype.name) for name, tensor in tensors.items()}
        packed = cls.room_for({name: (tensor.shape, dtypes[name]) for name, tensor in tensors.items()})
        for name, view in packed.views.items():
            view[...] = tensors[name]
        return packed

    @property
    def views(self) -> dict[str, np.ndarray]:
        """name -> view of `data` in the tensor's shape, bfloat16 as uint16."""
        return views_of(self.entries, self.data)

    def bucket(self, index: int, total: int) -> Bucket:
        """The header, with the checksum of the bytes as they are now."""
        return Bucket(index, total, self.entries, self.data.nbytes, checksum_of(self.data))


def verify_bucket(bucket: Bucket, data: np.ndarray) -> None:
    """Raises CorruptBucket unless `data`, uint8 [nbytes], has the size and the checksum of its header."""
    if data.nbytes != bucket.nbytes:
        raise CorruptBucket(f"bucket {bucket.index}: {data.nbytes} of {bucket.nbytes} bytes arrived")
    require_checksum(bucket.index, bucket.checksum, data)


def require_checksum(index: int, expected: int, data: np.ndarray) -> None:
    """Raises CorruptBucket unless `data`, sent for the bucket `index`, has the expected checksum."""
    checksum = checksum_of(data)
    if checksum != expected:
        raise CorruptBucket(f"bucket {index}: checksum {checksum:#018x}, expected {expected:#018x}")


def unpack_bucket(bucket: Bucket, data: np.ndarray) -> dict[str, np.ndarray]:
    """name -> view of `data` in the tensor's shape, bfloat16 as uint16. Raises CorruptBucket like `verify_bucket`."""
    verify_bucket(bucket, data)
    return views_of(bucket.entries, data)


def views_of(entries: Iterable[TensorEntry], data: np.ndarray) -> dict[str, np.ndarray]:
    """Like `unpack_bucket`, of bytes that have been verified."""
    views = {}
    for entry in entries:
        own = data[entry.offset : entry.offset + entry.nbytes]
        views[entry.name] = own.view(CARRIER.get(entry.dtype, entry.dtype)).reshape(entry.shape)
    return views


def checksum_of(data: np.ndarray) -> int:
    """XXH3 of contiguous bytes."""
    return xxhash.xxh3_64_intdigest(data.data)
