"""Metrics of completions and of their claims, against cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from made_run import PROMPT, claim, completion

from evidence.types import FrameInfo, Group, Sample, Trajectory
from orchestration.reporting.completions import LEAST_GROUPS, MOST_SHOWN, claim_metrics, completion_metrics, top_phrase

INFO = FrameInfo("key", (0.0, 1.0), (100, 50), (200, 100), 2.0)
SAMPLE = Sample("s", "test", "a", "Where?", "left", video_path="a.mp4")


def group(*texts: str, tokens: int = 3, finish: str = "stop") -> Group:
    ids = np.zeros(tokens, np.int32), np.zeros(tokens, np.float32), ((0, 0, 1), (1, 1, tokens))
    return Group(0, SAMPLE, INFO, PROMPT, tuple(Trajectory(*ids, text, finish) for text in texts), 0)


def test_lengths_are_means_over_all_completions() -> None:
    metrics = completion_metrics([group("a", "b", "c", tokens=2), group("d", tokens=6, finish="length")])
    assert metrics == {"rollout/tokens": 3.0, "rollout/cut_short": 0.25, "rollout/versions": 2.0}


def test_claims_are_counted_and_measured_in_the_space_of_their_boxes() -> None:
    quarter, tenth = claim("red square", "0,0,500,500"), claim("Red  Square", "0,0,1000,100")
    unreadable = "<obj>red square</obj><box>[1,2]</box>at<t>1.0</t>s"
    groups = [group(completion(quarter, tenth), "prose"), group(completion(quarter), completion(unreadable))]
    assert not any(name.startswith("claims/top_phrase") for name in claim_metrics(groups, "thousand"))
    assert claim_metrics([*groups, *groups], "thousand") == {
        "claims/per_completion": 0.75,
        "claims/completions_with": 0.5,
        "claims/box_area": pytest.approx((0.25 + 0.1 + 0.25) / 3),
        "claims/top_phrase_share": 1.0,
        "claims/top_phrase": "red square",
    }


def test_without_claims_nothing_is_said_of_them() -> None:
    assert claim_metrics([group("prose")], "resized") == {"claims/per_completion": 0.0, "claims/completions_with": 0.0}


def test_a_phrase_counts_where_half_of_a_prompts_completions_use_it() -> None:
    often, rarely = [["ball"], ["ball", "ball"], [], ["cup"]], [["ball"], ["cup"], ["cup"]]
    assert top_phrase([often]) == ("ball", 1.0)
    assert top_phrase([often, often, rarely, [[], []]]) == ("ball", 2 / 4)
    assert top_phrase([[[]]]) == ("", 0.0)


def test_a_phrase_that_the_policy_wrote_is_shown_on_one_short_line() -> None:
    hostile = "a\x1b[2J\n" + "b" * 200
    shown = claim_metrics([group(completion(claim(hostile)))] * LEAST_GROUPS, "resized")["claims/top_phrase"]
    assert isinstance(shown, str)
    assert len(shown) <= MOST_SHOWN
    assert shown.isprintable()
