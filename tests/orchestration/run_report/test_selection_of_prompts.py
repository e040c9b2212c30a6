"""Which prompts a report embeds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.run_report.selection import (
    AGAIN,
    APART,
    CHANGED,
    EVENLY,
    SPREAD,
    Facts,
    Key,
    chosen,
    count_by_reason,
    rankings,
    spread_out,
)


def group(step: int, spread: float = 0.0, apart: float | None = None, sample: str = "", run: int = 0) -> Facts:
    return Facts(Key(run, "training", step, step), sample or f"{run}-{step}", spread, apart)


def clip(step: int, name: str, spread: float) -> Facts:
    return Facts(Key(0, "held-out", step, name), name, spread)


def test_places_are_spread_evenly_from_the_ends_inwards() -> None:
    assert list(spread_out(9)) == [8, 0, 4, 6, 2, 7, 5, 3, 1]
    assert list(spread_out(1)) == [0]
    assert list(spread_out(0)) == []


@given(st.integers(0, 300))
def test_each_place_comes_once(count: int) -> None:
    assert sorted(spread_out(count)) == list(range(count))


def test_reasons_take_turns_and_each_prompt_comes_once() -> None:
    run = [group(1, 0.1, 0.9), group(2, 3.0, 0.1), group(3, 0.2), group(4, 2.0, 0.5), group(5)]
    taken = chosen(rankings([run], []), 4)
    assert {key.step: reason for key, reason in taken.items()} == {5: EVENLY, 2: SPREAD, 1: APART, 4: SPREAD}
    assert count_by_reason(taken) == {EVENLY: 1, SPREAD: 2, APART: 1}


def test_a_prompt_that_comes_again_is_taken_with_all_its_steps() -> None:
    run = [group(1, sample="a"), group(2), group(3, sample="b"), group(7, sample="a"), group(9, sample="a")]
    other = [group(3, sample="b", run=1)]
    taken = chosen(rankings([run, other], []), 5)
    assert [key[::2] for key in taken if taken[key] == AGAIN][:3] == [(0, 1), (0, 7), (0, 9)]
    assert all(reason != AGAIN for reason in chosen(rankings([[group(1), group(2)]], []), 9).values())


def test_a_prompt_of_many_steps_leaves_room_for_others() -> None:
    often = [group(step, sample="a") for step in range(1, 100)]
    taken = chosen(rankings([[*often, group(100, spread=9.0)]], []), 99)
    assert [key.step for key, reason in taken.items() if reason == AGAIN] == [1, 25, 50, 75, 87, 99]


def test_a_held_out_clip_is_taken_at_all_its_steps_or_not_at_all() -> None:
    clips = [clip(0, "x", 0.1), clip(0, "y", 0.8), clip(5, "x", 0.1), clip(5, "y", 0.8), clip(0, "once", 9.0)]
    taken = chosen(rankings([[]], [clips]), 3)
    assert taken == {Key(0, "held-out", 0, "y"): CHANGED, Key(0, "held-out", 5, "y"): CHANGED}


@pytest.mark.parametrize("most", [0, 1, 7, 100])
def test_never_more_than_asked_for(most: int) -> None:
    runs = [[group(step, spread=step, run=run) for step in range(20)] for run in range(3)]
    taken = chosen(rankings(runs, []), most)
    assert len(taken) == min(most, 60)
    assert len({key.run for key in taken}) == min(most, 3), "runs take turns, too"
