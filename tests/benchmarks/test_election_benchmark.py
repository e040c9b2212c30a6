from __future__ import annotations

import random

from benchmarks.election import DRAWN, candidate, measure, question, report
from evaluation.election.ballots import read_ballot


def test_simulated_candidates_are_in_rlers_form():
    rng = random.Random(0)
    asked = question(rng)
    ballots = [read_ballot(candidate(asked, 1.0, rng)) for _ in range(50)]
    assert all(ballot.cited and ballot.answer and ballot.confidence is not None for ballot in ballots)
    assert {ballot.completion.well_formed for ballot in ballots} == {True}


def test_early_stop_saves_candidates_and_runs_are_repeatable():
    first, second = (report([measure(0, 60, 1.0)]) for _ in range(2))
    assert first == second
    assert 3 <= first["rler"]["candidates"] < DRAWN
    assert first["rler"]["tokens_saved"] > 0.4
    assert first["majority_8"]["tokens_saved"] == 0
    assert first["majority_8"]["accuracy"] == first["majority_8_decided"]["accuracy"]
