"""Steps that are not finite: told, counted, and too many in a row end the run."""

import math

import pytest

from evidence.errors import RunFailed
from orchestration.skips import Skips, first_few

GOOD = {"loss": 0.5, "skipped": 0.0}
BAD = {"loss": math.nan, "skipped": 1.0}


def test_only_skips_in_a_row_end_a_run(caplog: pytest.LogCaptureFixture) -> None:
    skips = Skips(3)
    found = [skips.count(metrics, f"step {n}") for n, metrics in enumerate([BAD, BAD, GOOD, BAD, BAD])]
    assert found == [True, True, False, True, True]
    assert skips.total == 4
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["step 0", "step 1", "step 3", "step 4"]
    with pytest.raises(
        RunFailed, match=r"^step 5, groups 7, 9: loss or gradient is not finite \(loss nan\), in 3 steps"
    ):
        skips.count(BAD, "step 5, groups 7, 9")


def test_of_many_names_the_first_are_told_and_how_many_more_there_are() -> None:
    assert first_few(["a", "b", "c", "d"]) == "a, b, c, d"
    assert first_few(["a", "b", "c", "d", "e", "f"]) == "a, b, c, d and 2 more"
