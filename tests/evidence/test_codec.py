"""JSON round trips are bit-exact, and anything else is refused with a clear message."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evidence.codec import decode, encode
from evidence.errors import BadInput
from evidence.types import (
    Claim,
    ClaimScore,
    FrameInfo,
    Group,
    KeyFrame,
    Prompt,
    Sample,
    ScoredGroup,
    Trajectory,
    Verdict,
)

# Every bit pattern of float32, including NaNs with payloads, -0.0 and subnormals.
BITS = st.integers(0, 2**32 - 1)


def floats(shape: Any) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.uint32, shape, elements=BITS).map(lambda bits: bits.view(np.float32))


def ints(shape: Any) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.int32, shape)


number = st.floats()
box = st.tuples(number, number, number, number)
sizes = st.tuples(st.integers(1, 4000), st.integers(1, 4000))
samples = st.builds(
    Sample,
    image_size=st.none() | sizes,
    key_frames=st.lists(st.builds(KeyFrame, time=number), max_size=3).map(tuple),
    key_items=st.dictionaries(
        st.text(), st.dictionaries(st.text(), st.lists(box, max_size=2).map(tuple), max_size=2), max_size=2
    ),
)
infos = st.builds(FrameInfo, times=st.lists(number, max_size=3).map(tuple), duration=number)
prompts = st.builds(Prompt, token_ids=ints(4), request_ids=ints(0), positions=ints((3, 4)), grids=ints((2, 3)))
trajectories = st.builds(Trajectory, token_ids=ints(3), logprobs=floats(3))
claims = st.builds(Claim, box=st.none() | box, time=st.none() | number, until=st.none() | number)
verdicts = st.builds(Verdict, relevance=number, localization=number)
scores = st.builds(ClaimScore, claim=claims, verdict=verdicts, temporal_penalty=number, score=number)
groups = st.builds(
    Group,
    sample=samples,
    frames=infos,
    prompt=prompts,
    trajectories=st.lists(trajectories, max_size=2).map(tuple),
)
scored_groups = st.builds(
    ScoredGroup,
    group=groups,
    rewards=floats(2),
    terms=st.dictionaries(st.text(), floats(2), max_size=2),
    paid=st.dictionaries(st.text(), floats(2), max_size=2),
    evidence=st.lists(st.lists(scores, max_size=2).map(tuple), max_size=2).map(tuple),
)
EVERY_KIND = [samples, infos, prompts, trajectories, groups, claims, verdicts, scores, scored_groups]


def assert_same(a: Any, b: Any) -> None:
    """Assert recursive equality of types and values; arrays by their bits, floats by their repr (NaN equals NaN)."""
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    elif is_dataclass(a):
        for field in fields(a):
            assert_same(getattr(a, field.name), getattr(b, field.name))
    elif isinstance(a, tuple):
        assert len(a) == len(b)
        for item_a, item_b in zip(a, b):
            assert_same(item_a, item_b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    else:
        assert repr(a) == repr(b)  # distinguishes -0.0 from 0.0, and nan equals nan


@pytest.mark.parametrize("kind", EVERY_KIND, ids=lambda kind: str(kind)[:20])
@given(data=st.data())
@settings(deadline=None, max_examples=50)
def test_json_round_trip_is_exact(kind: st.SearchStrategy, data: st.DataObject) -> None:
    value = data.draw(kind)
    text = json.dumps(encode(value), allow_nan=False)
    assert_same(decode(type(value), json.loads(text)), value)


def test_non_contiguous_arrays_are_encoded_and_decoded_arrays_are_writable() -> None:
    positions = np.arange(12, dtype=np.int32).reshape(4, 3).T[:, ::2]
    prompt = Prompt(np.zeros(0, np.int32), np.zeros((), np.int32), positions, np.asfortranarray(np.ones((2, 3), ">f4")))
    back = decode(Prompt, encode(prompt))
    assert_same(back, prompt)
    back.positions[0, 0] = 9


TRAJECTORY = Trajectory(np.arange(3, dtype=np.int32), np.zeros(3, np.float32), ((0, 0, 3),), "text", "stop")
GROUP = Group(
    7,
    Sample("a", "b", "c", "d", "e", key_items={"0": {"dog": ((0.0, 0.0, 1.0, 1.0),)}}),
    FrameInfo("key", (0.0, 1.0), (28, 28), (56, 56), 2.0),
    Prompt(*(np.zeros(1, np.int32),) * 4),
    (TRAJECTORY, TRAJECTORY),
    0,
)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ((), [], r"^Group: must be an object, not \[\]"),
        (("id",), None, r"^Group.id: must be a whole number, not None"),
        (("id",), True, r"^Group.id: must be a whole number"),
        (("id",), 1.0, r"^Group.id: must be a whole number"),
        (("sample", "answer"), 3, r"^Group.sample.answer: must be a string, not 3"),
        (("sample", "colour"), 3, r"^Group.sample: unknown key 'colour'; the keys are id, "),
        (
            ("sample", "key_items", "0", "dog", 0),
            [0, 0, 1],
            r"^Group.sample.key_items\['0'\]\['dog'\]\[0\]: must be a list of 4",
        ),
        (("frames", "times"), "01", r"^Group.frames.times: must be a list, not"),
        (("frames", "times", 1), "1", r"^Group.frames.times\[1\]: must be a number, or one of nan, inf, -inf"),
        (("frames", "duration"), float("nan"), r"^Group.frames.duration: must be a number"),
        (("frames", "duration"), 10**400, r"^Group.frames.duration: must be a number"),
        (("frames", "duration"), None, r"^Group.frames.duration: must be a number"),
        (("trajectories", 1, "text"), None, r"^Group.trajectories\[1\].text: must be a string"),
        (("trajectories", 1, "logprobs"), [0.0], r"^Group.trajectories\[1\].logprobs: must be an object"),
        (("prompt", "grids", "shape"), [2], r"^Group.prompt.grids: not an array: 4 bytes do not fill shape \[2\]"),
        (("prompt", "grids", "shape"), [-1, -1], r"^Group.prompt.grids: not an array: shape"),
        (("prompt", "grids", "shape"), None, r"^Group.prompt.grids: not an array"),
        (("prompt", "grids", "dtype"), "|O", r"^Group.prompt.grids: not an array: dtype"),
        (("prompt", "grids", "dtype"), "int32", r"^Group.prompt.grids: not an array: dtype"),
        (("prompt", "grids", "dtype"), "what", r"^Group.prompt.grids: not an array"),
        (("prompt", "grids", "dtype"), "<i3", r"^Group.prompt.grids: not an array"),
        (
            ("prompt", "grids"),
            {"dtype": "<i4", "shape": [0, 2**70], "base64": ""},
            r"^Group.prompt.grids: not an array",
        ),
        (
            ("prompt", "grids"),
            {"dtype": "<i4", "shape": [1] * 99, "base64": "AAAAAA=="},
            r"^Group.prompt.grids: not an",
        ),
        (("prompt", "grids", "base64"), "AAA", r"^Group.prompt.grids: not an array"),
        (("prompt", "grids", "base64"), "AAAA!AA==", r"^Group.prompt.grids: not an array"),
        (("prompt", "grids", "more"), 1, r"^Group.prompt.grids: must be an array's dtype, shape and base64"),
    ],
)
def test_invalid_data_is_refused_with_place_and_reason(place: tuple, value: Any, message: str) -> None:
    data: Any = json.loads(json.dumps(encode(GROUP)))
    assert_same(decode(Group, data), GROUP)
    if place:
        at = data
        for step in place[:-1]:
            at = at[step]
        at[place[-1]] = value
    else:
        data = value
    with pytest.raises(BadInput, match=message):
        decode(Group, data)


def test_a_missing_key_is_named() -> None:
    data = encode(GROUP)
    del data["prompt"]["grids"]
    with pytest.raises(BadInput, match=r"^Group.prompt: the key 'grids' is missing"):
        decode(Group, data)


@pytest.mark.parametrize("value", [np.array(["a"]), np.array([None]), {1: "a"}, {"a"}, np.float32(1), object()])
def test_values_without_a_lossless_form_are_not_encoded(value: Any) -> None:
    with pytest.raises(TypeError, match="has no JSON form"):
        encode(value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.sampled_from([*Claim.__dataclass_fields__, "a"]), x),
    )
)
@settings(deadline=None)
def test_any_other_json_raises_bad_input(data: Any) -> None:
    with pytest.raises(BadInput, match=r"^Claim"):
        decode(Claim, data)
