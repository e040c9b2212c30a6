"""The report about a stall, against a case worked by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestration.reporting.stalls import Ends, EngineFacts, Facts, GroupFacts, RefereeFacts, Stage, report

NOW = 10_000.0
FACTS = Facts(
    groups=[
        GroupFacts(10, Stage.COMPLETIONS, NOW - 462, engine="rollout engine 1"),
        GroupFacts(11, Stage.TRAINING, NOW - 300),
        GroupFacts(12, Stage.TRAINING, NOW - 360),
        GroupFacts(13, Stage.REFEREE, NOW - 60),
        GroupFacts(14, Stage.COMPLETIONS, NOW - 30, engine="rollout engine 1"),
        GroupFacts(15, Stage.ENGINE, NOW - 190),
        GroupFacts(16, Stage.FRAMES, NOW - 200),
        GroupFacts(17, Stage.FRAMES, NOW - 100),
    ],
    anchor=10,
    needed=4,
    oldest_startable=7,
    engines=[
        EngineFacts("rollout engine 0", 6, 0, loads=7, since=NOW - 360),
        EngineFacts("rollout engine 1", 7, 2),
        EngineFacts("rollout engine 2", 5, 0, loads=7, restarts=True, since=NOW - 3725),
        EngineFacts("rollout engine 3", 4, 1, evaluates=4),
    ],
    referees=[RefereeFacts("referee 0", 5), RefereeFacts("referee 1", 0, restarts=True)],
    no_room=1,
    learner=("waits for groups", NOW - 451),
)


def test_a_report_names_who_waits_for_whom_and_since_when() -> None:
    assert report(FACTS, NOW).splitlines() == [
        "  learner: waits for groups, for 7:31; 2 groups are ready, a step takes 4",
        "  group 10, which holds back those after it: waits for its completions, on rollout engine 1, for 7:42",
        "  waiting for their frames: groups 16, 17, the longest for 3:20; 1 for room in the frame store"
        " (cluster.frames_gib)",
        "  waiting for an engine that may start them: group 15, the longest for 3:10",
        "  waiting for their completions: groups 10, 14, the longest for 7:42",
        "  waiting for the referee: group 13, the longest for 1:00",
        "  waiting for the groups before them: groups 11, 12, the longest for 6:00",
        "  rollout engine 0: version 6, loads version 7, for 6:00, may start no group before version 7,"
        " generates 0 groups",
        "  rollout engine 1: version 7, generates 2 groups (10, 14)",
        "  rollout engine 2: restarts, for 1:02:05, generates 0 groups",
        "  rollout engine 3: version 4, is set aside to evaluate version 4, generates 1 groups",
        "  referee 0: runs, 5 calls under way",
        "  referee 1: restarts, 0 calls under way",
    ]


@pytest.mark.parametrize("stage", [Stage.FRAMES, Stage.TRAINING])
def test_what_no_group_waits_for_is_left_out(stage: Stage) -> None:
    lines = report(replace(FACTS, groups=[GroupFacts(n, stage, NOW) for n in range(8)], anchor=None), NOW).splitlines()
    assert len(lines) == 2
    assert "groups 0, 1, 2, 3, 4, 5 and 2 more, the longest for 0:00" in lines[1]
    assert ("frame store" in lines[1]) == (stage is Stage.FRAMES)


def test_the_longest_time_without_an_end_counts_the_time_until_now() -> None:
    ends = Ends()
    assert ends.longest_s(5.0) == 0
    for now, longest in ((10.0, 0.0), (13.0, 3.0), (14.0, 3.0), (24.0, 10.0)):
        ends.note(now)
        assert ends.longest_s(now) == longest
    assert (ends.longest_s(30.0), ends.longest_s(40.0)) == (10.0, 16.0)
