"""The sampling contract: which frames are shown, at which size and under which key."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from evidence.errors import BadInput
from evidence.sampling import (
    SamplingContract,
    Selection,
    frame_indices,
    frame_key,
    mean_spacing,
    most_bytes,
    most_frames,
    resized_size,
    resolved,
    selection,
)
from evidence.types import KeyFrame, Sample

contracts = st.builds(
    SamplingContract,
    frames=st.integers(1, 16),
    max_pixels=st.integers(80_000, 400_000),
    min_pixels=st.integers(784, 20_000),
    multiple=st.sampled_from([14, 28, 32]),
)
# Bounds so close together that often no size lies between them.
narrow = st.tuples(st.integers(1024, 200_000), st.integers(0, 20_000), st.sampled_from([14, 28, 32])).map(
    lambda t: SamplingContract(frames=1, min_pixels=t[0], max_pixels=t[0] + t[1], multiple=t[2])
)
sides = st.integers(1, 4000)
gaps = st.lists(st.floats(0.01, 5), min_size=0, max_size=60)


def starts(gaps: list[float]) -> np.ndarray:
    return np.cumsum([0.0, *gaps])


@given(st.integers(1, 5000), st.integers(1, 64))
def test_uniform_indices_spread_from_the_first_frame_to_the_last(total: int, frames: int) -> None:
    indices = frame_indices(np.arange(total) / 25, SamplingContract(frames=frames))
    assert len(indices) == min(frames, total)
    assert indices[0] == 0
    steps = np.diff(indices)
    assert (steps >= 1).all()
    if len(steps):
        assert indices[-1] == total - 1
        assert steps.max() - steps.min() <= 1


def test_uniform_indices_are_rounded_to_the_nearest_frame() -> None:
    indices = frame_indices([0.1 * k for k in range(12)], SamplingContract(frames=4))
    assert indices.tolist() == [0, 4, 7, 11]  # of 0, 3.67, 7.33, 11
    assert indices.dtype == np.int64


def test_ticks_count_from_the_first_frame_and_include_the_last_within_rounding() -> None:
    contract = SamplingContract(fps=2, frames=100, min_frames=1)
    assert frame_indices(5 + np.arange(100) / 25, contract).tolist() == [0, 12, 25, 37, 50, 62, 75, 87]
    each_second = SamplingContract(fps=1, frames=9, min_frames=1)
    assert frame_indices([0.0, 1.0, 1.998], each_second).tolist() == [0, 1, 2]
    assert frame_indices([0.0, 1.0, 1.99], each_second).tolist() == [0, 1]


def test_a_frame_that_begins_at_the_end_of_the_rounding_is_on_display() -> None:
    times = [0.0, 1.0, 5.0 + 0.005]
    assert frame_indices(times, SamplingContract(frames=1), Selection((5.0,))).tolist() == [0, 2]


def test_sampling_by_fps_takes_the_frames_on_display_at_its_ticks() -> None:
    contract = SamplingContract(fps=2, frames=100, min_frames=1)
    assert frame_indices(np.arange(100) / 25, contract).tolist() == [0, 12, 25, 37, 50, 62, 75, 87]
    # A variable frame rate: the frame of 0.1 s stays on display until 1.9 s.
    assert frame_indices([0.0, 0.1, 1.9, 2.0, 2.2, 3.1], contract).tolist() == [0, 1, 3, 4, 5][:4]


@given(gaps, st.floats(0.1, 30), st.integers(1, 16), st.integers(0, 40))
def test_sampling_by_fps_stays_between_min_frames_and_frames(
    gaps: list[float], fps: float, least: int, more: int
) -> None:
    times, most = starts(gaps), least + more
    indices = frame_indices(times, SamplingContract(fps=fps, min_frames=least, frames=most))
    assert min(least, len(times)) <= len(indices) <= most
    assert (np.diff(indices) > 0).all()
    assert indices[0] == 0


@given(gaps, st.lists(st.floats(-1, 400), max_size=8), st.sampled_from([0.0, 0.5]))
def test_key_frames_are_added_wherever_they_lie(gaps: list[float], keys: list[float], fps: float) -> None:
    times, contract = starts(gaps), SamplingContract(frames=4, fps=fps)
    plain, with_keys = frame_indices(times, contract), frame_indices(times, contract, Selection(tuple(keys)))
    begun = [int((times <= key + 0.005).sum()) - 1 for key in keys]
    assert set(with_keys) == set(plain) | {max(index, 0) for index in begun}
    assert (np.diff(with_keys) > 0).all()


def test_a_key_frame_after_the_last_sampled_one_is_shown() -> None:
    contract = SamplingContract(fps=1, min_frames=1, frames=10)
    times = np.arange(75) / 25
    assert frame_indices(times, contract).tolist() == [0, 25, 50]
    assert frame_indices(times, contract, Selection((2.9,))).tolist() == [0, 25, 50, 72]


def test_a_time_rounded_to_hundredths_means_its_own_frame() -> None:
    times = np.arange(300) / 29.97
    rounded = [round(float(t), 2) for t in times]
    assert frame_indices(times, SamplingContract(frames=1), Selection(tuple(rounded))).tolist() == list(range(300))


@given(st.integers(1, 60), st.floats(0, 20), st.floats(0, 20), st.integers(1, 8))
def test_a_part_is_sampled_as_if_it_were_the_whole_video(total: int, one: float, other: float, frames: int) -> None:
    times, contract, part = np.arange(total) / 4, SamplingContract(frames=frames), (min(one, other), max(one, other))
    ends = [*times[1:], np.inf]
    inside = [n for n in range(total) if times[n] <= part[1] + 0.005 and ends[n] > part[0] + 0.005]
    chosen = frame_indices(times, contract, Selection(part=part))
    assert chosen.tolist() == [inside[n] for n in frame_indices(times[inside], contract)]


def test_key_frames_outside_a_part_select_its_first_or_last_frame() -> None:
    times, part = np.arange(40) / 4, (2.0, 5.0)
    assert frame_indices(times, SamplingContract(frames=1), Selection((0.0, 3.0, 9.0), part)).tolist() == [8, 12, 20]
    assert frame_indices(times, SamplingContract(frames=3), Selection(part=(90.0, 99.0))).tolist() == [39]


def test_only_a_contract_with_key_frames_shows_them() -> None:
    sample = Sample("1", "", "", "", "", key_frames=(KeyFrame("2", 7.5), KeyFrame("1", 1.25), KeyFrame("3", 7.5)))
    assert selection(sample, SamplingContract()) == Selection()
    assert selection(sample, SamplingContract(key_frames=True)) == Selection((1.25, 7.5))
    assert selection(replace(sample, fps=3.0, part=(1.0, 2.0)), SamplingContract()) == Selection((), (1.0, 2.0), 3.0)


@given(sides, sides, st.one_of(contracts, narrow), st.integers(1, 64))
def test_resized_sizes_keep_their_guarantees_in_order(
    width: int, height: int, contract: SamplingContract, frames: int
) -> None:
    step = contract.multiple
    w, h = resized_size(width, height, contract, frames)
    assert w % step == h % step == 0
    assert min(w, h) >= step
    assert w * h <= contract.max_pixels
    assert w * h * frames <= contract.total_pixels
    # Some scale puts each side within one multiple of its own.
    lowest = max((w - step) / width, (h - step) / height)
    highest = min((w + step) / width, (h + step) / height)
    assert lowest <= highest + 1e-9


@given(sides, sides, contracts)
def test_the_area_is_at_least_min_pixels(width: int, height: int, contract: SamplingContract) -> None:
    w, h = resized_size(width, height, contract)
    if max(width, height) <= 20 * min(width, height):  # beyond it, one side is a single tile
        assert contract.min_pixels <= w * h


def test_equal_bounds_on_a_frame_that_is_not_square() -> None:
    exact = SamplingContract(frames=1, min_pixels=28 * 28 * 40, max_pixels=28 * 28 * 40, multiple=28)
    assert resized_size(640, 400, exact) == (8 * 28, 5 * 28)
    assert resized_size(620, 400, exact) == (8 * 28, 5 * 28)  # smart_resize gives 7 x 5, below its own minimum


def test_a_side_below_half_a_tile_scales_up_the_whole_frame() -> None:
    contract = SamplingContract(multiple=28)
    assert resized_size(7, 70, contract) == resized_size(10, 100, contract) == (28, 280)
    assert resized_size(14, 140, contract) == (28, 140), "half a tile rounds to none, and is one"
    assert resized_size(15, 150, contract) == (28, 140)


@pytest.mark.parametrize(
    ("size", "bounds", "expected"),
    [
        ((448, 224), {}, (448, 224)),  # exactly max_pixels
        ((56, 56), {}, (56, 56)),  # exactly min_pixels
        ((28, 28), {"min_pixels": 16 * 784}, (112, 112)),  # grows to exactly 4 x 4 tiles
        ((1120, 1120), {"max_pixels": 16 * 784}, (112, 112)),  # shrinks to them
        ((100, 100), {"frames": 1, "min_pixels": 784, "max_pixels": 784, "total_pixels": 784}, (28, 28)),
        ((448, 224), {"frames": 1, "total_pixels": 100352}, (448, 224)),
    ],
)
def test_sizes_right_at_the_bounds(size: tuple[int, int], bounds: dict[str, int], expected: tuple[int, int]) -> None:
    assert resized_size(*size, SamplingContract(multiple=28, **bounds)) == expected


@pytest.mark.parametrize(
    ("size", "least", "most", "expected"),
    [
        ((25, 14), 784, 60784, (28, 28)),  # the rounded size is exactly min_pixels
        ((56, 56), 16 * 784, 64 * 784, (112, 112)),  # too small: grows to min_pixels, not to max_pixels
        ((28, 28), 16 * 784, 25 * 784, (112, 112)),
        ((27, 84), 3136, 63136, (56, 112)),  # grows: rounded up
        ((364, 336), 20 * 784, 16913, (140, 112)),  # of the sizes between the bounds, the one of the nearest shape
        ((672, 616), 27 * 784, 24544, (168, 140)),
        ((53, 133), 3136, 4783, (28, 112)),
    ],
)
def test_sizes_of_known_frames(size: tuple[int, int], least: int, most: int, expected: tuple[int, int]) -> None:
    contract = SamplingContract(frames=1, min_pixels=least, max_pixels=most, multiple=28)
    assert resized_size(*size, contract) == expected


def test_total_pixels_are_shared_by_the_frames() -> None:
    contract = SamplingContract(frames=2, min_pixels=784, total_pixels=2 * 16 * 784, multiple=28)
    assert resized_size(1120, 1120, contract, 2) == (112, 112)
    assert resized_size(1120, 1120, contract, 8) == (56, 56)
    assert resized_size(1120, 1120, contract, 32) == (28, 28)
    with pytest.raises(BadInput, match=r"^contract\.total_pixels = 25088: too few for 33 frames of one tile each"):
        resized_size(1120, 1120, contract, 33)


@given(sides, sides, st.one_of(contracts, narrow))
def test_sizes_equal_those_of_transformers_where_these_keep_the_bounds(
    width: int, height: int, contract: SamplingContract
) -> None:
    # smart_resize refuses aspect ratios above 200, and computes with a side of 0 below half a multiple.
    if min(width, height) > contract.multiple / 2 and max(width, height) <= 200 * min(width, height):
        size = smart_resize(height, width, contract.multiple, contract.min_pixels, contract.max_pixels)
        # Where a side is exactly a whole number of multiples, its rounding error can make that one more or less.
        scales = (math.sqrt(bound / (width * height)) for bound in (contract.min_pixels, contract.max_pixels))
        multiples = [side * scale / contract.multiple for scale in scales for side in (width, height)]
        if any(math.isclose(count, round(count), rel_tol=1e-9) for count in multiples):
            return
        if contract.min_pixels <= size[0] * size[1] <= contract.max_pixels:
            assert resized_size(width, height, contract) == size[::-1]


@given(sides, sides, contracts)
def test_a_frame_of_the_right_size_stays_as_it_is(width: int, height: int, contract: SamplingContract) -> None:
    """The engine's processor must not resize the frames again (promise 5)."""
    size = resized_size(width, height, contract)
    if contract.min_pixels <= size[0] * size[1]:
        assert resized_size(*size, contract) == size


@given(sides, sides, contracts, st.integers(0, 5))
def test_most_bytes_is_an_upper_bound(width: int, height: int, contract: SamplingContract, keys: int) -> None:
    selected = Selection(tuple(k + 0.3 for k in range(keys)))
    n = len(frame_indices(np.arange(100) / 5, contract, selected))
    w, h = resized_size(width, height, contract, n)
    assert 3 * n * w * h <= most_bytes(contract, selected)


def test_most_bytes_of_known_contracts() -> None:
    contract = SamplingContract(frames=4)
    assert most_frames(contract, Selection((0.5, 1.5))) == 6
    assert most_bytes(contract, Selection((0.5, 1.5))) == 3 * 6 * 100352
    assert most_bytes(replace(contract, total_pixels=200_000)) == 3 * 200_000


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"frames": 0}, "^frames = "),
        ({"fps": -1.0}, "^fps = "),
        ({"min_frames": 0}, "^min_frames = 0"),
        ({"min_pixels": 0}, "^min_pixels = 0"),
        ({"fps": 1.0, "min_frames": 17}, r"^min_frames = 17: must be at most frames \(16\)$"),
        ({"max_pixels": 100}, r"^max_pixels = 100: must be at least min_pixels \(3136\)$"),
        (
            {"total_pixels": 16 * 3136 - 1},
            "^total_pixels = 50175: 16 frames need at least 50176; raise it, or lower frames or min_pixels$",
        ),
        ({"multiple": 100, "total_pixels": 16 * 100**2 - 1}, "^total_pixels = 159999: 16 frames need at least 160000"),
        ({"multiple": 0}, "^multiple = 0"),
        ({"multiple": 400}, "^max_pixels = .*one tile of 400 x 400"),
    ],
)
def test_impossible_contracts_are_refused(change: dict[str, float], part: str) -> None:
    with pytest.raises(BadInput, match=part):
        replace(SamplingContract(), **change)


def test_the_smallest_contract_is_a_single_pixel() -> None:
    smallest = SamplingContract(frames=1, min_frames=1, min_pixels=1, max_pixels=1, total_pixels=1)
    assert resized_size(5, 9, replace(smallest, multiple=1)) == (1, 1)


def test_mean_spacing_of_uneven_frames() -> None:
    assert mean_spacing((0.0, 0.5, 3.0)) == mean_spacing((2.0, 2.5, 5.0)) == 1.5


def test_the_key_changes_with_everything_that_changes_pixels() -> None:
    contract = SamplingContract(multiple=28)
    key = frame_key("digest", contract, "decord 1")
    assert key == frame_key("digest", SamplingContract(multiple=28), "decord 1")
    values = {field.name: getattr(contract, field.name) for field in fields(contract)}
    changed = [replace(contract, **{name: not v if v is False else v + 1}) for name, v in values.items()]
    others = [frame_key("digest", other, "decord 1") for other in changed]
    keys = [key, *others, frame_key("other", contract, "decord 1"), frame_key("digest", contract, "decord 2")]
    for selected in (Selection((0.5,)), Selection(part=(0.5, 1.0)), Selection(fps=0.5), Selection(fps=3.0)):
        keys.append(frame_key("digest", contract, "decord 1", selected))
    assert len(set(keys)) == len(keys)


def test_the_key_of_a_resolved_contract_is_that_of_the_same_explicit_value() -> None:
    """The key that frames had before `multiple` could follow from the model."""
    explicit = frame_key("digest", SamplingContract(multiple=28), "decord 1", Selection((0.5,)))
    assert explicit == "fad43b2bbdb0545a39881689f982d83f"
    assert frame_key("digest", resolved(SamplingContract(), 28), "decord 1", Selection((0.5,))) == explicit


def test_an_explicit_multiple_is_kept() -> None:
    assert resolved(SamplingContract(multiple=56), 28).tile == 56
    assert resolved(SamplingContract(), 32).tile == 32


def test_a_tile_larger_than_the_bounds_allow_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^contract.max_pixels = 784: .*one tile of 32 x 32"):
        resolved(SamplingContract(min_pixels=784, max_pixels=784), 32)


def test_an_unresolved_contract_gives_no_size_and_no_key() -> None:
    for compute in (partial(resized_size, 640, 480), partial(frame_key, "digest", decoder="decord 1")):
        with pytest.raises(ValueError, match=r"contract.multiple is not resolved"):
            compute(contract=SamplingContract())
