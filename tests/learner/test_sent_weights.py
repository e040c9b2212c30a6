"""What a rank sends of its buckets, without ranks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from evidence.delta import apply_delta
from evidence.manifest import Bucket, Packed
from learner.sent_weights import SentWeights
from learner.zero.gather import Gathered


def buckets(step: int, changing: bool = True) -> list[Gathered]:
    """Two buckets: `step` words of the first one have changed since step 0, and all of the second."""
    few, all_ = np.zeros(1000, np.uint16), np.full(100, step if changing else 0, np.uint16)
    few[:step] = 1
    return [Gathered(n, 2, Packed.of({f"w{n}": tensor})) for n, tensor in enumerate((few, all_))]


def sent(weights: SentWeights, version: int, base: int | None, of: list[Gathered], keep: bool = True) -> list[tuple]:
    items = list(weights.send(version, base, of, keep))
    return list(zip(items[::2], items[1::2]))


def bases(pairs: list[tuple[Bucket, np.ndarray]]) -> list[int | None]:
    return [bucket.delta.base if bucket.delta else None for bucket, _ in pairs]


def test_changes_are_sent_where_they_are_smaller_and_their_base_was_sent_last() -> None:
    weights = SentWeights()
    first = sent(weights, 1, None, buckets(1))
    assert bases(first) == [None, None]
    second = sent(weights, 3, 1, buckets(2))
    assert bases(second) == [1, None], "all of the second bucket has changed"
    mirror = first[0][1].copy()
    apply_delta(*second[0], mirror)
    assert np.array_equal(mirror, buckets(2)[0].packed.data)
    assert bases(sent(weights, 4, 1, buckets(3))) == [None, None], "version 3 was sent since"
    assert bases(sent(weights, 5, None, buckets(4))) == [None, None], "all was wanted"
    assert bases(sent(weights, 6, 5, buckets(5, changing=False))) == [5, None]
    assert bases(sent(weights, 7, 6, buckets(6, changing=False))) == [6, 6]


def test_nothing_is_a_base_that_was_not_sent_to_its_end() -> None:
    weights = SentWeights()
    sent(weights, 1, None, buckets(1))

    def broken() -> Iterator[Gathered]:
        yield buckets(2)[0]
        raise OSError("a peer died")

    with contextlib.suppress(OSError):
        list(weights.send(2, 1, broken(), keep=True))
    assert bases(sent(weights, 3, 1, buckets(3))) == [None, None]
    cut = weights.send(4, 3, buckets(4), keep=True)
    next(cut)
    assert bases(sent(weights, 5, 3, buckets(5))) == [None, None]


def test_without_keeping_nothing_is_held() -> None:
    weights = SentWeights()
    sent(weights, 1, None, buckets(1), keep=False)
    assert weights._buckets == {}
    assert bases(sent(weights, 2, 1, buckets(2), keep=False)) == [None, None]
