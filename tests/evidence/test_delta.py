from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evidence.delta import apply_delta, find_delta, verify_delta
from evidence.manifest import Bucket, CorruptBucket, Manifest, Packed, unpack_bucket

WORDS = 3000


def changed(before: np.ndarray, after: np.ndarray) -> tuple[Bucket, np.ndarray]:
    """The bucket of `after`, uint16, as changes to `before`, which are few enough."""
    packed = Packed.of({"w": after})
    found = find_delta(4, Packed.of({"w": before}).data, packed.data)
    assert found is not None
    delta, data = found
    return replace(packed.bucket(2, 3), delta=delta), data


# Distances on both sides of 255 and its multiples, and changes at both ends.
@given(
    arrays(np.uint16, WORDS, elements=st.integers(0, 2**16 - 1), fill=st.integers(0, 3)),
    st.sets(st.sampled_from([0, 1, 2, 255, 256, 257, 511, 512, 513, 768, 1279, 1280, WORDS - 2, WORDS - 1])),
    st.sets(st.integers(0, WORDS - 1), max_size=900),
)
def test_changes_make_the_new_bucket_bit_for_bit(before: np.ndarray, some: set[int], others: set[int]) -> None:
    after = before.copy()
    after[sorted(some | others)] += 1
    bucket, data = changed(before, after)
    target = Packed.of({"w": before}).data
    verify_delta(bucket, data)
    apply_delta(bucket, data, target)
    assert np.array_equal(unpack_bucket(bucket, target)["w"], after)
    assert bucket.delta is not None
    assert bucket.delta.words == len(some | others)


@given(st.sampled_from([np.float32, np.uint16, np.float16]), st.integers(0, 2**32 - 1))
def test_tensors_of_every_dtype_pass_through_fifty_versions(dtype: type, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tensors = {"a": np.ones((30, 7), dtype), "b": rng.normal(0, 9, 101).astype(dtype)}
    mirror = Packed.of(tensors).data.copy()
    for version in range(50):
        before = Packed.of(tensors).data
        tensors["a"].reshape(-1)[rng.integers(0, 210, 5)] *= 3
        tensors["b"][rng.integers(0, 101, 3)] += 1
        packed = Packed.of(tensors)
        found = find_delta(version, before, packed.data)
        assert found is not None
        bucket = replace(packed.bucket(0, 1), delta=found[0])
        apply_delta(bucket, found[1], mirror)
        assert mirror.tobytes() == packed.data.tobytes()


@pytest.mark.parametrize(("share", "most"), [(0.01, 0.02), (0.03, 0.05), (0.0001, 0.005)])
def test_few_changes_are_few_bytes(share: float, most: float) -> None:
    rng = np.random.default_rng(0)
    before = rng.integers(0, 2**16, 2**20, np.uint16)
    after = before.copy()
    after[rng.random(2**20) < share] ^= 1
    bucket, data = changed(before, after)
    assert data.nbytes < most * bucket.nbytes
    assert Manifest(5, (bucket,)).sent == data.nbytes


def test_many_changes_are_sent_as_a_whole() -> None:
    before = np.zeros(3200, np.uint8)
    after = before.copy()
    after.view(np.uint16)[:1100] = 1
    assert find_delta(1, before, after) is None
    after.view(np.uint16)[1060:] = 0
    assert find_delta(1, before, after) is not None


def test_damaged_changes_and_a_wrong_base_are_refused() -> None:
    before = np.arange(1000, dtype=np.uint16)
    after = before.copy()
    after[[3, 700]] = 0
    bucket, data = changed(before, after)
    for at in range(len(data)):
        damaged = data.copy()
        damaged[at] ^= 1
        with pytest.raises(CorruptBucket, match="bucket 2: checksum"):
            verify_delta(bucket, damaged)
    with pytest.raises(CorruptBucket, match=r"bucket 2: 7 of 8 bytes of changes"):
        verify_delta(bucket, data[:-1])
    other = before.copy()
    other[500] = 7
    with pytest.raises(CorruptBucket, match="bucket 2: checksum"):
        apply_delta(bucket, data, Packed.of({"w": other}).data)
    with pytest.raises(CorruptBucket, match="bytes here"):
        apply_delta(bucket, data, Packed.of({"w": before[:500]}).data)


def test_a_manifest_names_its_base() -> None:
    bucket, _ = changed(np.zeros(64, np.uint16), np.eye(1, 64, dtype=np.uint16)[0])
    whole = Packed.of({"v": np.ones(3, np.uint16)}).bucket(0, 3)
    assert (Manifest(5, (whole,)).base, Manifest(5, (whole, bucket)).base) == (None, 4)
    with pytest.raises(CorruptBucket):
        unpack_bucket(bucket, np.zeros(5, np.uint8))
