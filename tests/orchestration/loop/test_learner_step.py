"""The input that the ranks get for a step, and the state that a step leaves behind."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from evidence.types import FrameInfo, Group, Prompt, Sample, ScoredGroup, Trajectory
from learner.advantages import Advantages
from learner.settings import LoraSpec, PolicyConfig, RankConfig, ReferenceConfig
from orchestration.config import CONFIGS, load_config
from orchestration.loop import learner_step
from orchestration.loop.group_maker import ReadyGroup
from orchestration.loop.learner_step import Learner
from orchestration.settings import TrainConfig
from orchestration.supervision.reference import Reference
from orchestration.supervision.waiting import ActorLost

SAMPLE = Sample("a", "shapes", "general", "Where?", "left", video_path="a.mp4")
INFO = FrameInfo("key", (0.0,), (56, 56), (56, 56), 1.0)


NO_RATES: Any = SimpleNamespace(of_step=lambda groups, seconds: {})


class FakeLease:
    frames, info = "frames", INFO

    async def renew(self) -> None:
        pass


def group(number: int, *rewards: float) -> ReadyGroup:
    ids = np.zeros(3, np.int32)
    prompt = Prompt(ids, ids, np.zeros((3, 3), np.int32), np.array([[1, 2, 2]], np.int32))
    trajectory = Trajectory(np.zeros(2, np.int32), np.zeros(2, np.float32), ((0, 0, 2),), "", "stop")
    drawn = Group(number, SAMPLE, INFO, prompt, (trajectory,) * len(rewards), 0)
    return ReadyGroup(ScoredGroup(drawn, np.array(rewards, np.float32), {}, {}, {}, ()), FakeLease(), (0.0, 0.0))


def advantages_of(steps: list[tuple[list[ReadyGroup], bool]]) -> list[list[float]]:
    """The advantages that the ranks get in each step. A step: its groups, and whether the ranks skip it."""
    received = []

    class FakeGang:
        def fetch(self, parts: Any) -> None:
            pass

        def train_step(self, parts: Any, learning_rate: float) -> dict[str, float]:
            received.append(sorted({float(a) for part in parts for micro in part for a in micro.advantages}))
            return {"skipped": float(steps[len(received) - 1][1]), "seconds": 1.0}

    learner = Learner.__new__(Learner)  # without its ranks
    overrides = ["reward.normalise=task_std", "learner.ranks=1"]
    learner.config = load_config(TrainConfig, CONFIGS / "experiment/quickstart.yaml", overrides)
    learner.gang, learner.reference = FakeGang(), None
    learner.advantages = Advantages("task_std", divide_by_std=False)
    learner.rates = NO_RATES
    for number, (groups, _) in enumerate(steps):
        asyncio.run(learner.train(groups, number, SimpleNamespace()))
    return received


def test_completions_left_out_as_overlong_are_counted() -> None:
    def metrics(*overrides: str) -> dict[str, float]:
        trained = {"skipped": 0.0, "seconds": 1.0}
        gang = SimpleNamespace(fetch=lambda parts: None, train_step=lambda parts, rate: dict(trained))
        learner = Learner.__new__(Learner)  # without its ranks
        learner.config = load_config(
            TrainConfig, CONFIGS / "experiment/quickstart.yaml", ["learner.ranks=1", *overrides]
        )
        learner.gang, learner.reference = gang, None  # type: ignore[assignment]
        learner.advantages = Advantages("sum", divide_by_std=False)
        learner.rates = NO_RATES
        ready = group(0, 0, 1, 2)
        drawn = ready.scored.group
        trajectories = (replace(drawn.trajectories[0], finish_reason="length"), *drawn.trajectories[1:])
        scored = replace(ready.scored, group=replace(drawn, trajectories=trajectories))
        return asyncio.run(learner.train([replace(ready, scored=scored)], 0, SimpleNamespace()))

    assert metrics("algorithm.overlong_filtering=true")["overlong_filtered"] == 1
    assert "overlong_filtered" not in metrics()


def test_rewards_of_a_skipped_step_do_not_affect_later_steps() -> None:
    first, outlier, last = [group(0, 0, 2)], [group(1, 0, 1000)], [group(2, 0, 1)]
    with_skipped = advantages_of([(first, False), (outlier, True), (last, False)])
    without = advantages_of([(first, False), (last, False)])
    assert [with_skipped[0], with_skipped[2]] == without
    assert advantages_of([(first, False), (outlier, False), (last, False)])[2] != without[1]


def test_the_learning_rate_and_the_seed_of_shuffled_rewards_follow_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    rates, seeds = [], []

    class FakeGang:
        def fetch(self, parts: Any) -> None:
            pass

        def train_step(self, parts: Any, learning_rate: float) -> dict[str, float]:
            rates.append(learning_rate)
            return {"skipped": 0.0, "seconds": 1.0}

    learner = Learner.__new__(Learner)
    overrides = ["learner.ranks=1", "shuffle_rewards=true", "seed=3", "steps=20"]
    learner.config = load_config(TrainConfig, CONFIGS / "experiment/quickstart.yaml", overrides)
    learner.gang, learner.reference = FakeGang(), None
    learner.advantages = Advantages("sum", divide_by_std=False)
    learner.rates = NO_RATES
    monkeypatch.setattr(
        "orchestration.loop.learner_step.shuffled", lambda groups, seed: seeds.append(seed) or list(groups)
    )
    metrics = asyncio.run(learner.train([group(0, 0, 1)], 12, SimpleNamespace()))
    assert metrics["learning_rate"] == rates[0]
    assert rates == [learner.config.learner.schedule.rate(12, 20)]
    assert seeds == [3 + 12]


@pytest.mark.parametrize("trained", [{"train_vision": True, "vision_lr_factor": 0.1}, {"lora": LoraSpec()}])
def test_a_frozen_reference_has_the_sizes_of_the_policy_and_trains_nothing(
    trained: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[RankConfig] = []
    monkeypatch.setattr("orchestration.supervision.reference.LearnerGang", lambda config, *_: started.append(config))
    policy = PolicyConfig(vision_cache_mib=7, logit_chunk_mib=8, gradient_checkpointing=True, **trained)
    Reference(ReferenceConfig("frozen", 2), None, RankConfig("folder", (), policy))
    (config,) = started
    assert not config.trained
    assert config.policy == PolicyConfig(vision_cache_mib=7, logit_chunk_mib=8)


def test_ranks_whose_reference_does_not_start_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A learner that is restarted would otherwise wait for the GPUs that they hold."""
    running: list[Any] = []

    class FakeGang:
        def __init__(self, *_: Any) -> None:
            running.append(self)

        def stop(self) -> None:
            running.remove(self)

    def lost(*_: Any) -> None:
        assert running
        raise ActorLost("learner rank 0 died while loading the model")

    monkeypatch.setattr(learner_step, "LearnerGang", FakeGang)
    monkeypatch.setattr(learner_step, "Reference", lost)
    overrides = ["learner.reference.kind=frozen", "algorithm.kl.coefficient=0.1"]
    config = load_config(TrainConfig, CONFIGS / "experiment/quickstart.yaml", overrides)
    assert config.learner.uses_reference
    with pytest.raises(ActorLost):
        Learner(config, "model", ())
    assert not running
