"""Which completion each scored token of a micro-batch is of."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evidence.types import Prompt
from learner.micro import sequence_of
from learner.packing import pack_row, stack_rows


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4), min_size=1, max_size=4))
def test_tokens_are_numbered_by_their_completion_through_all_rows(rows: list[list[int]]) -> None:
    packed = []
    for number, lengths in enumerate(rows):
        tokens = np.full(2 + number, 7, np.int32)
        positions = np.broadcast_to(np.arange(len(tokens), dtype=np.int32), (3, len(tokens)))
        prompt = Prompt(tokens, tokens, positions, np.zeros((0, 3), np.int32))
        packed.append(pack_row([prompt] * len(lengths), [np.ones(n, np.int32) for n in lengths]))
    lengths = [n for row in rows for n in row]
    found = sequence_of(stack_rows(packed))
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, np.repeat(np.arange(len(lengths)), lengths))
