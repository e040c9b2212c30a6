from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from evidence.manifest import CorruptBucket, Packed, unpack_bucket

TENSORS = st.dictionaries(
    st.text(min_size=1, max_size=8),
    st.sampled_from([np.float32, np.float16, np.uint16, np.int64, np.uint8]).flatmap(
        lambda dtype: arrays(dtype, array_shapes(min_dims=0, max_dims=3, max_side=5))
    ),
    max_size=5,
)


@given(TENSORS)
def test_tensors_are_unpacked_bit_for_bit(tensors: dict[str, np.ndarray]) -> None:
    packed = Packed.of(tensors)
    bucket, data = packed.bucket(3, 8), packed.data
    unpacked = unpack_bucket(bucket, data)
    assert list(unpacked) == list(tensors)
    for name, tensor in tensors.items():
        assert unpacked[name].dtype == tensor.dtype
        assert unpacked[name].shape == tensor.shape
        assert unpacked[name].tobytes() == tensor.tobytes()


def test_a_transposed_tensor_keeps_its_values() -> None:
    tensor = np.arange(6, dtype=np.float32).reshape(2, 3).T
    packed = Packed.of({"w": tensor})
    bucket, data = packed.bucket(0, 8), packed.data
    assert np.array_equal(unpack_bucket(bucket, data)["w"], tensor)


def test_uint16_carries_bfloat16_and_views_share_the_bytes() -> None:
    packed = Packed.of({"a": np.ones(3, np.uint16), "b": np.ones(2, np.float32)})
    bucket, data = packed.bucket(0, 8), packed.data
    assert [entry.dtype for entry in bucket.entries] == ["bfloat16", "float32"]
    assert all(np.shares_memory(view, data) for view in unpack_bucket(bucket, data).values())


@pytest.mark.parametrize("byte", [0, 5, 70])
def test_a_flipped_bit_or_a_lost_byte_is_detected(byte: int) -> None:
    packed = Packed.of({"a": np.ones(3, np.float32), "b": np.ones(20, np.float32)})
    bucket, data = packed.bucket(7, 8), packed.data
    data[byte] ^= 1
    with pytest.raises(CorruptBucket, match="bucket 7: checksum"):
        unpack_bucket(bucket, data)
    with pytest.raises(CorruptBucket, match=r"bucket 7: \d+ of \d+ bytes arrived"):
        unpack_bucket(bucket, data[:-1])
