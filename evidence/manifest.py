"""The transport format of a weight set: buckets of tensors as flat bytes, and a manifest that names all of them.

Guarantees (promise 7): `unpack_bucket` returns tensors bit-equal to those given to `pack_bucket`, or raises; they are
views of the received bytes, never copies. bfloat16, which numpy lacks, is carried as uint16 of the same bits; no
weight is a true uint16, so the dtype is unambiguous.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

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
class Bucket:
    """The header of one bucket: its index in the weight set, its tensors, its size and the CRC-32 of its bytes."""

    index: int
    entries: tuple[TensorEntry, ...]
    nbytes: int
    checksum: int


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


def pack_bucket(index: int, tensors: Mapping[str, np.ndarray]) -> tuple[Bucket, np.ndarray]:
    """The header and the bytes, uint8 [nbytes], of `tensors`; bfloat16 tensors are passed as their uint16 view."""
    entries, offset = [], 0
    for name, tensor in tensors.items():
        dtype = CARRIED.get(tensor.dtype.name, tensor.dtype.name)
        entries.append(TensorEntry(name, tensor.shape, dtype, offset, tensor.nbytes))
        offset += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
    data = np.zeros(offset, np.uint8)
    for entry, tensor in zip(entries, tensors.values()):
        _bytes_of(entry, data)[:] = np.ascontiguousarray(tensor).reshape(-1).view(np.uint8)
    return Bucket(index, tuple(entries), data.nbytes, zlib.crc32(data.data)), data


def verify_bucket(bucket: Bucket, data: np.ndarray) -> None:
    """Raises CorruptBucket unless `data`, uint8 [nbytes], has the size and the checksum of its header."""
    if data.nbytes != bucket.nbytes:
        raise CorruptBucket(f"bucket {bucket.index}: {data.nbytes} of {bucket.nbytes} bytes arrived")
    checksum = zlib.crc32(data.data)
    if checksum != bucket.checksum:
        raise CorruptBucket(f"bucket {bucket.index}: checksum {checksum:#010x}, expected {bucket.checksum:#010x}")


def unpack_bucket(bucket: Bucket, data: np.ndarray) -> dict[str, np.ndarray]:
    """name -> view of `data` in the tensor's shape, bfloat16 as uint16. Raises CorruptBucket like `verify_bucket`."""
    verify_bucket(bucket, data)
    return {
        entry.name: _bytes_of(entry, data).view(CARRIER.get(entry.dtype, entry.dtype)).reshape(entry.shape)
        for entry in bucket.entries
    }


def _bytes_of(entry: TensorEntry, data: np.ndarray) -> np.ndarray:
    return data[entry.offset : entry.offset + entry.nbytes]
