"""The state of a run: what a checkpoint holds comes back equal, and any other data is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from evidence.errors import BadInput
from evidence.types import FrameInfo, Group, Prompt, Sample, ScoredGroup, Trajectory
from learner.advantages import Advantages
from orchestration.loop.run_state import RunState, encoded
from orchestration.reporting.reward_log import RewardLog
from referee.reward.settings import RewardConfig, TermConfig
from referee.trust.agreement import AgreementConfig, AgreementWatch


def scored(rewards: list[float]) -> ScoredGroup:
    ids = np.arange(3, dtype=np.int32)
    drawn = (
        Trajectory(ids, np.array([-0.1, -np.inf, np.nan], np.float32), ((0, 0, 2), (1, 2, 3)), "left", "stop"),
    ) * 2
    info = FrameInfo("key", (0.0, 4.0), (56, 56), (56, 56), 5.0)
    grid = np.ones((1, 3), np.int32)
    sample = Sample("s", "test", "a", "Where?", "left", video_path="a.mp4")
    values = np.array(rewards, np.float32)
    group = Group(7, sample, info, Prompt(ids, ids, np.stack([ids] * 3), grid), drawn, 3)
    return ScoredGroup(group, values, {"acc": values}, {"acc": values}, {"acc": 1.0}, ((), ()))


def test_ready_groups_come_back_bit_for_bit() -> None:
    group = scored([0.1, 0.3])
    state = RunState(step=2, version=5, restarts=[[1, 4]], queue=[7, 8], ready=encoded({7: group}))
    again = RunState.of(json.loads(json.dumps(state.plain(), allow_nan=False)), "x")
    assert again == state
    back = again.ready_groups()[7]
    assert back.group.sample == group.group.sample
    for here, there in zip(back.group.trajectories, group.group.trajectories):
        assert here.logprobs.tobytes() == there.logprobs.tobytes()
        assert here.version_spans == there.version_spans
    assert back.rewards.tobytes() == group.rewards.tobytes()


def test_a_restart_is_recorded_with_the_version_that_was_restored() -> None:
    assert RunState(step=3, version=3).restarted(9).restarted(12).restarts == [[3, 9], [9, 12]]


def test_the_state_of_another_kind_of_run_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^step-000004.json: not the checkpoint of a `ser train` run"):
        RunState.of({"step": 4, "data": {}}, "step-000004.json")


def test_running_moments_go_on_where_they_were() -> None:
    one, other = (Advantages("task_std", False) for _ in range(2))
    one.of_step([scored([0.0, 1.0])])
    one.step_ended()
    other.restore(json.loads(json.dumps(one.moments)))
    for advantages in (one, other):
        advantages.step_ended()
    assert [a.tolist() for a in one.of_step([scored([0.2, 0.9])])] == [
        a.tolist() for a in other.of_step([scored([0.2, 0.9])])
    ]


def test_the_windows_of_the_alarms_go_on_where_they_were() -> None:
    watch, again = (AgreementWatch(AgreementConfig(window=2, least=1, fall=0.1, rise=0.01)) for _ in range(2))
    steps = [([(0.1, 0.1), (0.9, 0.9)], 0.3), ([(0.2, 0.3)], float("nan")), ([(0.9, 0.1), (0.1, 0.9)], 0.5)]
    for claims, reward in steps:
        watch.step(claims, reward)
    again.restore(json.loads(json.dumps(watch.state, allow_nan=False)))
    last = watch.step([(0.8, 0.2), (0.2, 0.8)], 0.7)
    assert again.step([(0.8, 0.2), (0.2, 0.8)], 0.7).alarm == last.alarm is not None

    config = RewardConfig(terms={"acc": TermConfig()}, watched=3)
    log, other = (RewardLog(config, AgreementConfig()) for _ in range(2))
    log.step([scored([0.0, 1.0])])
    other.restore(json.loads(json.dumps(log.state)))
    assert other.state == log.state != RewardLog(config, AgreementConfig()).state
