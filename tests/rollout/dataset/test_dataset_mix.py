"""Draws from several files: their shares, whole epochs, filters, and draws that depend on their number only."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evidence.errors import BadInput
from rollout.dataset.mix import DataFile, Mixture

weight_lists = st.lists(st.floats(0.1, 10), min_size=1, max_size=5)


def test_every_epoch_draws_each_item_once_in_a_new_order() -> None:
    mixture = Mixture([range(10)], [1.0], seed=3)
    seen = [mixture[n] for n in range(20)]
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]
    assert seen != [Mixture([range(10)], [1.0], seed=4)[n] for n in range(20)]


def test_each_epoch_of_a_single_file_is_a_permutation_from_the_seed() -> None:
    """The embedded weights in assets/ were trained in this order."""
    mixture = Mixture([range(7)], [2.0], seed=5)
    orders = [np.random.default_rng([5, epoch]).permutation(7) for epoch in range(3)]
    assert [mixture[n] for n in range(21)] == np.concatenate(orders).tolist()


@settings(max_examples=50, deadline=None)
@given(weight_lists, st.integers(0, 2**40), st.lists(st.integers(0, 3000), min_size=1, max_size=20))
def test_a_draw_depends_on_its_number_only(weights: list[float], seed: int, draws: list[int]) -> None:
    def make_mixture() -> Mixture[str]:
        return Mixture([[f"{part}.{n}" for n in range(part + 3)] for part in range(len(weights))], weights, seed)

    mixture = make_mixture()
    in_order = [mixture[n] for n in range(max(draws) + 1)]
    resumed = make_mixture()  # starts at any draw, like a resumed run
    assert [resumed[n] for n in draws] == [in_order[n] for n in draws]


@settings(max_examples=50, deadline=None)
@given(weight_lists, st.integers(0, 5000))
def test_any_consecutive_draws_have_the_shares_of_the_files(weights: list[float], start: int) -> None:
    mixture = Mixture([[part] for part in range(len(weights))], weights, seed=0)
    for length in (10, 100, 1000):
        counts = Counter(mixture[n] for n in range(start, start + length))
        for part, weight in enumerate(weights):
            assert abs(counts[part] - length * weight / sum(weights)) < 6


def test_each_file_of_a_mixture_has_its_own_whole_epochs() -> None:
    parts = [[f"{part}.{n}" for n in range(size)] for part, size in enumerate((5, 5, 3))]
    mixture = Mixture(parts, [1, 1, 2], seed=1)
    drawn = [mixture[n] for n in range(400)]
    orders = []
    for part in parts:
        from_part = [item for item in drawn if item in part]
        epochs = [from_part[at : at + len(part)] for at in range(0, len(from_part) - len(part), len(part))]
        assert all(sorted(epoch) == part for epoch in epochs)
        orders.append([item.split(".")[1] for item in from_part[:20]])
    assert orders[0] != orders[1], "two files of the same size are shuffled differently"


ROWS = [
    {"video": "a.mp4", "task": task, "source": source, "question": "What?", "answer": "It.", "duration": duration}
    for task, source, duration in (("x", "one", 5), ("y", "one", 50), ("x", "two", 500))
]


def write(folder: Path, rows: list[dict[str, Any]]) -> str:
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(folder / "data.jsonl")


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        ({}, ["0", "1", "2"]),
        ({"tasks": ["x"]}, ["0", "2"]),
        ({"sources": ["one"]}, ["0", "1"]),
        ({"tasks": ["x", "y"], "max_duration": 50.0}, ["0", "1"]),
        ({"tasks": ["x"], "sources": ["two"]}, ["2"]),
    ],
)
def test_filters_keep_the_samples_they_name(tmp_path: Path, filters: dict[str, Any], kept: list[str]) -> None:
    assert [sample.id for sample in DataFile(write(tmp_path, ROWS), **filters).read()] == kept


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ({"tasks": ["z"]}, "no sample of the task 'z'; it has 'x', 'y'"),
        ({"max_duration": 1.0}, "no sample passes its filters"),
        ({"format": "v-star"}, "line 1: the key 'vid' is missing or null"),
        ({"media_root": "/"}, None),
    ],
)
def test_impossible_filters_are_refused(tmp_path: Path, filters: dict[str, Any], words: str | None) -> None:
    file = DataFile(write(tmp_path, ROWS), **filters)
    if words is None:
        assert file.read()[0].media_path == "/a.mp4"
        return
    with pytest.raises(BadInput, match=words) as refusal:
        file.read()
    assert str(refusal.value).startswith(file.path)


def test_max_duration_refuses_a_sample_of_unknown_duration(tmp_path: Path) -> None:
    path = write(tmp_path, [ROWS[0], ROWS[1] | {"duration": None}])
    with pytest.raises(BadInput, match="max_duration is set, but sample 1 has no duration"):
        DataFile(path, max_duration=9.0).read()
    assert len(DataFile(path, max_duration=9.0, tasks=["x"]).read()) == 1
