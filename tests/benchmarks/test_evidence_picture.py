from typing import Any

import pytest

from benchmarks.evidence_picture import INK, best_and_worst, coloured, shown_frames
from evidence.drawing import CLAIM_COLOURS
from evidence.errors import BadInput

FIRST = "<obj>red circle</obj><box>[1,2,3,4]</box>at<t>1.0</t>"
INCOMPLETE = "<obj>cup</obj>"  # no claim of the reward's formula, so the run records no score for it
SECOND = "<obj>blue square</obj><box>[5,6,7,8]</box>at<t>6.0</t>"


def line(
    reward: float, text: str = "", times: tuple[float, ...] = (1.0,), flag: str | None = None, group: int = 0
) -> Any:
    claims = [{"time": time, "flag": flag} for time in times]
    return {"step": 1, "group": group, "reward": reward, "text": text, "claims": claims}


def test_the_pair_is_of_the_group_whose_rewards_differ_most():
    wide = [line(0.5, group=2), line(2.5, group=2), line(1.0, group=2), line(9.0, group=2, flag="missing")]
    best, worst = best_and_worst([line(3.0), line(2.9), *wide, line(9.0, times=(), group=2)])
    assert (best, worst) == (wide[1], wide[0])


def test_a_run_without_judged_claims_is_refused():
    with pytest.raises(BadInput, match="no completion whose claims were judged"):
        best_and_worst([line(1.0, flag="missing")])


def test_each_complete_claim_has_its_colour_and_nothing_is_lost():
    text = f"<think>I see {FIRST}s, {INCOMPLETE}, {SECOND}s</think><answer>left</answer>"
    pieces = list(coloured(line(1.0, text)))
    assert "".join(piece for piece, _ in pieces) == text
    assert [piece for piece, colour in pieces if colour != INK] == [FIRST, SECOND]
    assert [colour for _, colour in pieces if colour != INK] == list(CLAIM_COLOURS[:2])


def test_frames_that_claims_name_are_shown_beside_others():
    times = tuple(map(float, range(8)))
    assert shown_frames(times, [line(1.0, times=(3.2,)), line(0.0, times=(4.0,))]) == [0, 2, 3, 4]
    assert shown_frames(times[:2], [line(1.0)]) == [0, 1]
