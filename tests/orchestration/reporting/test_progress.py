"""The lines of progress where stderr is not a terminal."""

from __future__ import annotations

import pytest

from orchestration.reporting.progress import Progress


def test_a_line_every_half_minute_and_one_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = iter(range(0, 10_000, 10))
    now = 0

    def clock_s() -> float:
        return now

    with Progress("videomme", 10, clock_s) as progress:
        for _ in range(7):
            now = next(seconds)
            progress.advance(50)
    assert capsys.readouterr().err.splitlines() == [
        "videomme: 4 of 10 questions in 0:30, 0.13 questions/s, 7 tokens/s, 0:45 left",
        "videomme: 7 of 10 questions in 1:00, 0.12 questions/s, 6 tokens/s, 0:26 left",
        "videomme: 7 of 10 questions in 1:00, 0.12 questions/s, 6 tokens/s, 0:26 left",
    ]
