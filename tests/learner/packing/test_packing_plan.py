"""The packing plan: every sequence once and whole, ranks in lockstep, budgets kept, little padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence.errors import BadInput
from learner.packing.batch import waste
from learner.packing.plan import stack
from learner.packing.shared_prefix import Branch, Unit
from learner.packing.step import MicroLayout, StepTargets, gather_tokens, lay_out, with_targets
from learner.settings import PACKING_MODES, PackingConfig


def units_of(lengths: Sequence[tuple[int, Sequence[int]]]) -> list[Unit]:
    """Units from (prefix length, completion lengths). Every id occurs once, so that it identifies its token."""
    ids = iter(range(10**6))

    def take(n: int) -> np.ndarray:
        return np.array([next(ids) for _ in range(n)], np.int32)

    def branch(n: int) -> Branch:
        completion = take(n)
        return Branch(completion[:-1], np.zeros((3, n - 1), np.int32), completion)

    return [
        Unit(take(prefix), np.zeros((3, prefix), np.int32), (), tuple(branch(n) for n in completions))
        for prefix, completions in lengths
    ]


def flat(layouts: list[list[MicroLayout]]) -> list[MicroLayout]:
    return [layout for forwards in layouts for layout in forwards]


steps = st.lists(
    st.tuples(st.integers(1, 60), st.lists(st.integers(1, 30), min_size=1, max_size=6)), min_size=1, max_size=12
)


@given(steps, st.integers(1, 4), st.sampled_from(PACKING_MODES), st.sampled_from([1.0, 1.5, 4.0, 100.0]))
def test_every_token_once_equally_many_forwards_per_rank_and_none_above_the_budget(
    lengths: list[tuple[int, list[int]]], ranks: int, mode: str, factor: float
) -> None:
    units = units_of(lengths)
    budget = int(factor * max(unit.longest for unit in units))
    layouts = lay_out(units, ranks, PackingConfig(mode, budget))
    assert len(layouts) == ranks
    assert len({len(forwards) for forwards in layouts}) == 1, (
        "ZeRO-3 hangs unless all ranks run the same number of forwards"
    )
    check_tokens(units, flat(layouts), budget)


def check_tokens(units: list[Unit], layouts: list[MicroLayout], budget: int) -> None:
    """Each forward holds whole sequences, and each of their tokens is predicted from the one before it in its piece."""
    branches = [(unit, branch) for unit in units for branch in unit.branches]
    scored = np.concatenate([branch.targets for _, branch in branches])
    owner = np.repeat(np.arange(len(branches)), [len(branch.targets) for _, branch in branches])
    tokens = np.concatenate([layout.batch.token for layout in layouts])
    np.testing.assert_array_equal(np.sort(tokens), np.arange(len(scored)))
    for batch in (layout.batch for layout in layouts):
        assert batch.token_ids.size <= budget
        np.testing.assert_array_equal(batch.targets, scored[batch.token])
        ids, segment, branch = (a.reshape(-1) for a in (batch.token_ids, batch.segment, batch.branch))
        rows = np.arange(ids.size) // batch.token_ids.shape[1]
        count = int(batch.sequence.max(initial=-1)) + 1
        assert set(batch.sequence) == set(range(count))
        for sequence in range(count):
            scored_tokens = np.flatnonzero(batch.sequence == sequence)
            unit, sequence_branch = branches[owner[batch.token[scored_tokens[0]]]]
            np.testing.assert_array_equal(batch.targets[scored_tokens], sequence_branch.targets)
            predict_from = batch.predict_from[scored_tokens]
            last = predict_from[-1]
            # The last token attends to all tokens of its sequence, in order, and to nothing else.
            seen = (rows == rows[last]) & (segment == segment[last]) & np.isin(branch, (0, branch[last]))
            seen &= np.arange(ids.size) <= last
            np.testing.assert_array_equal(ids[seen], np.concatenate([unit.token_ids, sequence_branch.token_ids]))
            np.testing.assert_array_equal(np.flatnonzero(seen)[-len(scored_tokens) :], predict_from)


def test_a_unit_above_the_budget_is_split_between_sequences_and_repeats_its_prefix() -> None:
    units = units_of([(50, [11, 21, 31, 6])])  # 50 + 10 + 20 + 30 + 5 tokens
    (whole,) = flat(lay_out(units, 1, PackingConfig("prefix", 115)))
    assert (whole.batch.segment >= 0).sum() == 115
    split = flat(lay_out(units, 1, PackingConfig("prefix", 114)))
    assert sum((layout.batch.segment >= 0).sum() for layout in split) == 165
    check_tokens(units, split, 114)


def test_only_prefix_packing_shares_a_prompt() -> None:
    units = units_of([(5, [2, 1])])  # 1 token after the prompt, and none
    tokens = {
        mode: sum((layout.batch.segment >= 0).sum() for layout in flat(lay_out(units, 1, PackingConfig(mode, 100))))
        for mode in PACKING_MODES
    }
    assert tokens == {"none": 11, "sequence": 11, "prefix": 6}


def test_stacked_rows_may_fill_the_capacity() -> None:
    assert stack([2, 3, 2], 6) == [[1, 0], [2]]
    assert stack([2, 3, 2], 5) == [[1], [0, 2]]


def test_a_sequence_above_the_budget_is_refused() -> None:
    units = units_of([(5, [3]), (50, [11])])
    with pytest.raises(ValueError, match="unit 1 has a sequence of 60 tokens, above the budget of 59"):
        lay_out(units, 1, PackingConfig("sequence", 59))


def test_a_shared_prompt_is_run_once() -> None:
    """G = 8, P:C = 8:1: 4.5 times fewer tokens, not counting the last token of each completion, which is not run."""
    units = units_of([(512, [65] * 8)] * 4)
    tokens = {
        mode: sum((layout.batch.segment >= 0).sum() for layout in flat(lay_out(units, 2, PackingConfig(mode, 4096))))
        for mode in PACKING_MODES
    }
    assert tokens["none"] == tokens["sequence"] == 4.5 * tokens["prefix"]


@given(steps, st.integers(1, 4), st.sampled_from(["sequence", "prefix"]))
def test_sequences_laid_end_to_end_have_no_padding(lengths: list[tuple[int, list[int]]], ranks: int, mode: str) -> None:
    layouts = lay_out(units_of(lengths), ranks, PackingConfig(mode, 200))
    assert waste([layout.batch for layout in flat(layouts) if len(layout.batch.targets)]) == 0


def test_forwards_of_the_same_round_have_similar_costs() -> None:
    """ZeRO-3 waits for the slowest rank in each round."""
    units = units_of([(n, [1]) for n in (400, 400, 310, 300, 110, 100, 100)])
    costs = {
        mode: [
            [layout.batch.token_ids.size for layout in forwards]
            for forwards in lay_out(units, 2, PackingConfig(mode, 400))
        ]
        for mode in ("none", "sequence")
    }
    assert costs["none"] == [[400, 310, 200], [400, 300, 110]]
    assert costs["sequence"] == [[400, 310, 210], [400, 300, 100]]


def test_a_rank_without_work_runs_an_empty_forward() -> None:
    layouts = lay_out(units_of([(10, [3, 4])]), 3, PackingConfig())
    assert [len(forwards) for forwards in layouts] == [1, 1, 1]
    idle = layouts[2][0].batch
    assert idle.token_ids.shape == (1, 1)
    assert len(idle.targets) == len(idle.grids) == 0


def test_per_token_values_survive_the_way_to_forwards_and_back() -> None:
    units = units_of([(10, [3, 4]), (7, [5]), (30, [2, 2, 2])])
    layouts = lay_out(units, 2, PackingConfig("prefix", 40))
    count = 18
    values = [np.random.default_rng(n).random(count).astype(np.float32) for n in range(4)]
    filled = with_targets(layouts, StepTargets(*values))
    for n, name in enumerate(("weights", "advantages", "behaviour", "reference")):
        back = gather_tokens(layouts, [[getattr(micro, name) for micro in forwards] for forwards in filled])
        np.testing.assert_array_equal(back, values[n])


@pytest.mark.parametrize(
    ("change", "message"), [({"mode": "pack"}, "mode = pack"), ({"token_budget": 0}, "token_budget")]
)
def test_impossible_settings_are_refused(change: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        PackingConfig(**change)
