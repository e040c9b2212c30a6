"""Dynamic sampling, with the real ledger, admission, reward and loop: what is drawn anew, and when a run gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import cycle, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evidence.types import FrameInfo, Prompt, Sample, Trajectory
from learner.advantages import Advantages
from learner.settings import PackingConfig
from orchestration.config import CONFIGS, load_config
from orchestration.loop.admission import Admission
from orchestration.loop.group_maker import Draw, GroupMaker, Pipeline
from orchestration.loop.ledger import State
from orchestration.loop.rejections import MAX_DRAWS, NothingToLearn, TooManyRejected, no_variance
from orchestration.settings import TrainConfig
from orchestration.train import Run
from referee.reward.graph import RewardGraph
from referee.terms.view import GroupView
from rollout.dataset.mix import Mixture
from rollout.template import PromptTemplate

INFO = FrameInfo("key", (0.0,), (56, 56), (56, 56), 1.0)
NONE = np.zeros(0, np.int32)
SAMPLE = Sample("a", "test", "general video QA MCQ", "Where?", "A", options=("A. left", "B. right"), video_path="a.mp4")
GROUPS_PER_STEP = 2
NO_SKIPS = repeat(False)


class Lease:
    frames, info = None, INFO
    held = 0

    def __init__(self) -> None:
        Lease.held += 1

    async def renew(self) -> None: ...

    def release(self) -> None:
        Lease.held -= 1


class Engines:
    """Answers: A and B to a group that `varies`, else A alone."""

    def __init__(self, admission: Admission, varies: Callable[[int], bool], fails: Callable[[int], bool]):
        self.admission, self.varies, self.fails = admission, varies, fails

    async def generate(self, *asked: Any) -> tuple[tuple[Trajectory, ...], int]:
        n, group = asked[3], asked[6]  # the seed, which is the group's number where the run's is 0
        await asyncio.sleep(0)
        if self.fails(group):
            raise TimeoutError
        texts = ["<think></think><answer>A</answer>", f"<think></think><answer>{'AB'[self.varies(group)]}</answer>"]
        token = np.ones(1, np.int32), np.zeros(1, np.float32), ((0, 0, 1),)
        return tuple(Trajectory(*token, text, "stop") for text in texts * (n // 2)), self.admission.version


class LittleHouse(Pipeline):
    seen: list[float]

    def view(self, sample: Sample, info: FrameInfo, trajectories: tuple[Trajectory, ...], progress: float) -> GroupView:
        self.seen.append(progress)
        return super().view(sample, info, trajectories, progress)

    async def look(self, sample: Sample) -> tuple[Any, Prompt]:
        return Lease(), Prompt(NONE, NONE, NONE, NONE)

    def look_ahead(self, samples: Any) -> None:
        list(samples)


class Store:
    def lost(self, error: Exception) -> None: ...


def trained(
    tmp_path: Path,
    varies: Callable[[int], bool],
    fails: Callable[[int], bool],
    steps: int,
    dynamic: bool = True,
    skips: Iterator[bool] = NO_SKIPS,
    said: tuple[str, ...] = (),
) -> tuple[Run, list[tuple[int, ...]]]:
    """The run's loop without its learner: what each of `steps` steps would have been trained on. `skips`: of one
    attempt after the other, whether it is skipped. `said`: of the configuration."""
    parts = ["data.train=a", "data.heldout=b", "model.policy=p", "model.referee=r", f"steps={steps}"]
    sizes = [f"pacing.groups_per_step={GROUPS_PER_STEP}", "learner.ranks=1", "reward=accuracy_only"]
    config = load_config(TrainConfig, CONFIGS / "experiment/quickstart.yaml", [*parts, *sizes, *said])
    run = Run(config, tmp_path, None)  # type: ignore[arg-type]
    engines = Engines(run.admission, varies, fails)
    run.pipeline = LittleHouse(engines, None, Store(), None, PromptTemplate(), RewardGraph(config.reward))  # type: ignore[arg-type]
    run.pipeline.seen = []
    samples, draw = Mixture([[SAMPLE]], [1.0], 0), Draw(4, 1.0, 8)
    found = []

    async def loop() -> None:
        total = steps * GROUPS_PER_STEP
        maker = GroupMaker(run.pipeline, run.admission, run.ledger, draw, PackingConfig(), 0, total, dynamic)
        while (step := len(found) + 1) <= steps:
            while (batch := run.admission.take_batch()) is None:
                run._fill(maker, samples)
                await maker.wait(10)
            groups = [maker.ready.pop(group) for group in batch.groups]
            if next(skips):
                run._give_up(batch, groups)
                continue
            found.append(batch.groups)
            advantages = Advantages(config.reward.normalise, False).of_step([ready.scored for ready in groups])
            assert not dynamic or all(np.abs(one).max() > 0.1 for one in advantages), "each group teaches something"
            for group, ready in zip(batch.groups, groups):
                run.ledger.train(group, step)
                ready.lease.release()
            run.rejections.step_ended()
            run.admission.step_ended()
        await maker.stop()

    Lease.held = 0
    try:
        asyncio.run(loop())
    finally:
        run.ledger.check()
    assert Lease.held == 0
    return run, found


def test_groups_of_equal_reward_are_replaced_and_counted(tmp_path: Path) -> None:
    steps = 30
    run, batches = trained(tmp_path, lambda group: group % 4 == 0, lambda group: False, steps)
    assert all(group % 4 == 0 for batch in batches for group in batch)
    assert all(len(batch) == GROUPS_PER_STEP for batch in batches)
    trained_groups = run.ledger.groups(State.TRAINED)
    assert len(trained_groups) == steps * GROUPS_PER_STEP
    # Three of four, which is far above what may be broken, and no failure.
    equal = [group for group in range(max(trained_groups)) if group % 4]
    assert run.ledger.rejections()["zero_variance"] >= len(equal)
    assert all(run.ledger.entry(group).reason == "zero_variance" for group in equal)
    assert run.admission.free == run.config.pacing.slots
    # Training progress is of the steps taken, however many groups were drawn for them.
    assert set(run.pipeline.seen) == {step / steps for step in range(steps)}


def test_groups_of_skipped_steps_are_replaced_and_not_held_against_the_data(tmp_path: Path) -> None:
    skips = cycle([True, True, False])
    run, batches = trained(tmp_path, lambda group: True, lambda group: False, 20, skips=skips)
    assert [len(batch) for batch in batches] == [GROUPS_PER_STEP] * 20
    assert run.admission.version == 20
    assert run.ledger.rejections() == {"not_finite": 2 * 20 * GROUPS_PER_STEP}
    assert run.admission.free == run.config.pacing.slots


def test_without_dynamic_sampling_they_are_trained(tmp_path: Path) -> None:
    run, batches = trained(tmp_path, lambda group: False, lambda group: False, 5, dynamic=False)
    assert batches == [(2 * step, 2 * step + 1) for step in range(5)]
    assert "zero_variance" not in run.ledger.rejections()


@pytest.mark.parametrize("good_steps", [0, 20])
def test_a_run_of_equal_rewards_ends_and_says_why_however_well_it_began(tmp_path: Path, good_steps: int) -> None:
    drawn: list[int] = []

    def varies(group: int) -> bool:
        drawn.append(group)
        return group < good_steps * GROUPS_PER_STEP

    with pytest.raises(NothingToLearn, match=r"algorithm\.dynamic_sampling") as ended:
        trained(tmp_path, varies, lambda group: False, 100)
    assert "\n" not in str(ended.value)
    slots = 2 * GROUPS_PER_STEP
    assert max(drawn) - good_steps * GROUPS_PER_STEP <= (MAX_DRAWS + 1) * GROUPS_PER_STEP + 2 * slots


def test_broken_groups_still_end_a_run(tmp_path: Path) -> None:
    with pytest.raises(TooManyRejected, match="'poison'"):
        trained(tmp_path, lambda group: True, lambda group: group % 4 != 0, 100)


def half_for_b(view: GroupView) -> list[float]:
    return [0.5 * ("<answer>B" in text) for text in view.texts]


def test_terms_that_are_normalised_each_by_itself_teach_though_their_sum_does_not(tmp_path: Path) -> None:
    # 1 for A, and for B 2 times 0.5: all rewards are 1.
    said = "reward.normalise=each", f"reward.terms.b.use={__name__}:half_for_b", "reward.terms.b.weight=2.0"
    run, batches = trained(tmp_path, lambda group: group % 4 == 0, lambda group: False, 10, said=said)
    assert all(group % 4 == 0 for batch in batches for group in batch)
    assert run.ledger.rejections()["zero_variance"] >= 3 * 10


def test_terms_that_cancel_in_the_sum_are_variance_all_the_same() -> None:
    acc, ser = np.array([1, 1, 0, 0], np.float32), np.array([0, 0, 1, 1], np.float32)
    assert not no_variance(acc + ser, {"acc": acc, "ser": ser})
    assert not no_variance(acc, {"acc": acc})
    assert no_variance(2 * np.ones(4, np.float32), {"acc": np.ones(4, np.float32), "ser": np.ones(4, np.float32)})
