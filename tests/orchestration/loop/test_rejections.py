"""Dynamic sampling and skipped steps in the real loop, with a fake learner and fake engines that answer at once: which
groups are replaced, and when a run is ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from itertools import cycle, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evidence.errors import Interrupted, RunFailed
from evidence.supervision import Restarts
from evidence.types import FrameInfo, Prompt, Sample, Trajectory
from learner.advantages import Advantages
from orchestration.config import CONFIGS, load_config
from orchestration.loop.admission import Admission
from orchestration.loop.group_maker import ReadyGroup
from orchestration.loop.journal import Journal
from orchestration.loop.ledger import Ledger, State
from orchestration.loop.lineages import Lineage, first
from orchestration.loop.parts import Parts
from orchestration.loop.pipeline import Pipeline
from orchestration.loop.rejections import MAX_DRAWS, NothingToLearn, TooManyRejected, no_variance
from orchestration.loop.run_state import RunState
from orchestration.loop.training import Training
from orchestration.preflight import TrainInputs
from orchestration.reporting.stalls import EngineFacts, RefereeFacts
from orchestration.resuming import Start
from orchestration.settings import TrainConfig
from orchestration.supervision.waiting import ActorLost
from orchestration.train import Run
from referee.reward.graph import RewardGraph
from referee.terms.view import GroupView
from rollout.dataset.mix import Mixture
from rollout.template import PromptTemplate

INFO = FrameInfo("key", (0.0,), (56, 56), (56, 56), 1.0)
EMPTY = np.zeros(0, np.int32)
SAMPLE = Sample("a", "test", "general video QA MCQ", "Where?", "A", options=("A. left", "B. right"), video_path="a.mp4")
GROUPS_PER_STEP = 2
NO_SKIPS = repeat(False)


class FakeLease:
    frames, info = None, INFO
    unreleased = 0

    def __init__(self) -> None:
        FakeLease.unreleased += 1

    async def renew(self) -> None: ...

    def release(self) -> None:
        FakeLease.unreleased -= 1


class FakeRolloutPool:
    """Answers A and B for a group that `varies`, else only A; always with the current version. `fails`: groups whose
    generation times out."""

    restarts = refused_updates = 0

    def engine_facts(self) -> list[EngineFacts]:
        return []

    def running(self, task: asyncio.Task[Any]) -> None: ...

    def take_begun(self) -> list[int]:
        return [2]

    admission: Admission

    def __init__(self, varies: Callable[[int], bool], fails: Callable[[int], bool]):
        self.varies, self.fails = varies, fails
        self.drawn: list[int] = []

    async def generate(self, *arguments: Any) -> tuple[tuple[Trajectory, ...], int]:
        n, group = arguments[3], arguments[6]  # the seed, which is the number of the group in a run with seed 0
        self.drawn.append(group)
        await asyncio.sleep(0)
        if self.fails(group):
            raise TimeoutError
        texts = ["<think></think><answer>A</answer>", f"<think></think><answer>{'AB'[self.varies(group)]}</answer>"]
        token = np.ones(1, np.int32), np.zeros(1, np.float32), ((self.admission.version, 0, 1),)
        return tuple(Trajectory(*token, text, "stop") for text in texts * (n // 2)), self.admission.version

    async def settled(self) -> None: ...


class SmallPipeline(Pipeline):
    """Skips decoding and encoding, and records the training progress that the reward sees."""

    progress: list[float]

    def view(self, sample: Sample, info: FrameInfo, trajectories: tuple[Trajectory, ...], progress: float) -> GroupView:
        self.progress.append(progress)
        return super().view(sample, info, trajectories, progress)

    async def prepare(self, sample: Sample) -> tuple[Any, Prompt]:
        return FakeLease(), Prompt(EMPTY, EMPTY, EMPTY, EMPTY)

    def prefetch(self, samples: Any) -> None:
        list(samples)


class FakeStore:
    no_room = 0

    def lost(self, error: Exception) -> None: ...

    def counters(self) -> dict[str, int]:
        return {}


class FakeReferee:
    restarts = 0

    def facts(self) -> list[RefereeFacts]:
        return []

    def counters(self) -> dict[str, float]:
        return {}


class FakeLearner:
    """Records the groups of each step. `skips`: whether each attempt at a step is skipped."""

    exported: Path | None = None
    gang = None

    def __init__(self, config: TrainConfig, skips: Iterator[bool]):
        self.config, self.skips = config, skips
        self.advantages = Advantages(config.reward.normalise, False)
        self.batches: list[tuple[int, ...]] = []
        self.steps: list[int] = []

    async def train(self, groups: list[ReadyGroup], step: int, store: Any) -> dict[str, float]:
        self.steps.append(step)
        if next(self.skips):
            return {"loss": np.nan, "skipped": 1.0}
        self.batches.append(tuple(ready.scored.group.id for ready in groups))
        if self.config.algorithm.dynamic_sampling:
            advantages = Advantages(self.config.reward.normalise, False).of_step([ready.scored for ready in groups])
            assert all(np.abs(of_group).max() > 0.1 for of_group in advantages), "each group has an advantage"
        return {"loss": 0.0, "skipped": 0.0}

    async def export(self, folder: Path) -> None:
        self.exported = folder


class RecordingParts(Parts):
    """Records the published versions."""

    versions: list[int]

    async def publish(self, version: int, limit_s: float) -> None:
        await self.pipeline.rollout_pool.settled()
        self.versions.append(version)

    def watch_weights(self, wake: Callable[[], object]) -> None: ...

    async def republish_if_lost(self, version: int) -> None: ...


def started(
    tmp_path: Path,
    varies: Callable[[int], bool],
    fails: Callable[[int], bool],
    steps: int,
    dynamic: bool = True,
    skips: Iterator[bool] = NO_SKIPS,
    overrides: tuple[str, ...] = (),
    state: RunState | None = None,
) -> tuple[Run, Training]:
    """A run of `steps` steps that starts no processes. `varies`, `fails`: as in FakeRolloutPool; `skips`: as in
    FakeLearner. `state`: of the checkpoint that it goes on from."""
    names = ["data.train=a", "data.heldout=b", "model.policy=p", "model.referee=r", f"run_dir={tmp_path}"]
    sizes = [f"steps={steps}", f"pacing.groups_per_step={GROUPS_PER_STEP}", "learner.ranks=1", "reward=accuracy_only"]
    switches = [
        "wandb=disabled",
        "checkpoint.minutes=null",
        "sampling.group_size=4",
        f"algorithm.dynamic_sampling={dynamic}",
    ]
    overrides = (*names, *sizes, *switches, *overrides)
    config = load_config(TrainConfig, CONFIGS / "experiment/quickstart.yaml", overrides)
    inputs = TrainInputs(Mixture([[SAMPLE]], [1.0], 0), [], None, 1, {})  # type: ignore[arg-type]
    tmp_path.mkdir(exist_ok=True)
    run = Run(config, tmp_path, inputs, Start(tmp_path, False), Journal(tmp_path))
    pool = FakeRolloutPool(varies, fails)
    fakes: Any = pool, FakeReferee(), FakeStore(), None
    pipeline = SmallPipeline(*fakes, PromptTemplate(), RewardGraph(config.reward))
    pipeline.progress = []
    learner: Any = FakeLearner(config, skips)
    parts = RecordingParts(pipeline, learner, None, lambda: learner, Restarts(0))
    parts.versions = []
    begin = Lineage(state, Ledger.restore(state.ledger)) if state else first(run.journal)
    training = Training(config, tmp_path, inputs, parts, run.draw, begin)
    pool.admission = training.admission
    return run, training


def trained(*arguments: Any, **options: Any) -> Training:
    run, training = started(*arguments, **options)
    FakeLease.unreleased = 0
    try:
        asyncio.run(run._train(training))
    finally:
        training.ledger.check()
    assert FakeLease.unreleased == 0
    return training


def test_groups_of_equal_reward_are_replaced_and_counted(tmp_path: Path) -> None:
    steps = 30
    run = trained(tmp_path, lambda group: group % 4 == 0, lambda group: False, steps)
    assert all(group % 4 == 0 for batch in run.parts.learner.batches for group in batch)
    assert all(len(batch) == GROUPS_PER_STEP for batch in run.parts.learner.batches)
    trained_groups = run.ledger.groups(State.TRAINED)
    assert len(trained_groups) == steps * GROUPS_PER_STEP
    # Three of four groups: far more than may be rejected for other reasons, and yet the run succeeds.
    equal = [group for group in range(max(trained_groups)) if group % 4]
    assert run.ledger.rejections()["zero_variance"] >= len(equal)
    assert all(run.ledger.entry(group).reason == "zero_variance" for group in equal)
    assert run.admission.free == run.config.pacing.slots
    # Training progress counts optimizer steps, however many groups were drawn for them.
    assert set(run.parts.pipeline.progress) == {step / steps for step in range(steps)}


def test_groups_of_skipped_steps_are_replaced_and_do_not_count_as_broken(tmp_path: Path) -> None:
    skips = cycle([True, True, False])
    run = trained(tmp_path, lambda group: True, lambda group: False, 20, skips=skips)
    assert [len(batch) for batch in run.parts.learner.batches] == [GROUPS_PER_STEP] * 20
    assert (run.admission.step, run.admission.version) == (20, 20)
    assert run.parts.learner.steps == sorted([*range(20)] * 3), "a skipped attempt does not count as a step"
    assert run.ledger.rejections() == {"not_finite": 2 * 20 * GROUPS_PER_STEP}
    assert run.admission.free == run.config.pacing.slots


def test_without_dynamic_sampling_groups_of_equal_reward_are_trained(tmp_path: Path) -> None:
    run = trained(tmp_path, lambda group: False, lambda group: False, 5, dynamic=False)
    assert run.parts.learner.batches == [(2 * step, 2 * step + 1) for step in range(5)]
    assert "zero_variance" not in run.ledger.rejections()


@pytest.mark.parametrize("good_steps", [0, 20])
def test_a_run_of_equal_rewards_is_ended_with_the_reason_even_after_good_steps(tmp_path: Path, good_steps: int) -> None:
    drawn: list[int] = []

    def varies(group: int) -> bool:
        drawn.append(group)
        return group < good_steps * GROUPS_PER_STEP

    with pytest.raises(NothingToLearn, match=r"algorithm\.dynamic_sampling") as ended:
        trained(tmp_path, varies, lambda group: False, 100)
    assert "\n" not in str(ended.value)
    slots = 2 * GROUPS_PER_STEP
    assert max(drawn) - good_steps * GROUPS_PER_STEP <= (MAX_DRAWS + 1) * GROUPS_PER_STEP + 2 * slots


def test_too_many_broken_groups_end_a_run(tmp_path: Path) -> None:
    with pytest.raises(TooManyRejected, match="'poison'"):
        trained(tmp_path, lambda group: True, lambda group: group % 4 != 0, 100)


def half_for_b(view: GroupView) -> list[float]:
    """A reward term: 0.5 for the answer B, else 0."""
    return [0.5 * ("<answer>B" in text) for text in view.texts]


def test_terms_normalised_separately_have_variance_though_their_sum_has_none(tmp_path: Path) -> None:
    # The reward is 1 for A and 2 * 0.5 for B, so all sums are equal.
    overrides = "reward.normalise=each", f"reward.terms.b.use={__name__}:half_for_b", "reward.terms.b.weight=2.0"
    run = trained(tmp_path, lambda group: group % 4 == 0, lambda group: False, 10, overrides=overrides)
    assert all(group % 4 == 0 for batch in run.parts.learner.batches for group in batch)
    assert run.ledger.rejections()["zero_variance"] >= 3 * 10


def test_terms_that_cancel_in_the_sum_still_count_as_variance() -> None:
    acc, ser = np.array([1, 1, 0, 0], np.float32), np.array([0, 0, 1, 1], np.float32)
    assert not no_variance(acc + ser, {"acc": acc, "ser": ser})
    assert not no_variance(acc, {"acc": acc})
    assert no_variance(2 * np.ones(4, np.float32), {"acc": np.ones(4, np.float32), "ser": np.ones(4, np.float32)})


def test_after_a_restart_schedules_and_logs_follow_the_step_and_publications_the_version(tmp_path: Path) -> None:
    # The weights of step 4 were published again, under a new version.
    ledger = Ledger()
    for group in range(8):
        for move in (ledger.add, ledger.generate, ledger.score, ledger.ready):
            move(group)
        ledger.train(group, group // 2 + 1)
    ledger.settle()
    state = RunState(step=4, version=9, restarts=[[4, 9]], ledger=ledger.snapshot())
    run = trained(tmp_path, lambda group: True, lambda group: False, 6, state=state)
    assert run.parts.learner.steps == [4, 5]
    assert run.parts.versions == [10, 11]
    assert set(run.parts.pipeline.progress) <= {4 / 6, 5 / 6}
    logged = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert logged == [5, 6]
    assert [run.ledger.entry(group).step for group in run.ledger.groups(State.TRAINED)] == [5, 5, 6, 6]
    assert run.ledger.counts()["trained"] == 12


def test_a_run_goes_on_from_its_state_with_the_groups_that_were_ready(tmp_path: Path) -> None:
    run = trained(tmp_path / "whole", lambda group: group % 3 > 0, lambda group: False, 12)
    states: list[RunState] = []

    async def stop(training: Training, saves: Any) -> None:
        if training.admission.step == 5 and len(training.maker.ready) >= 2:
            states.append(training.state())
            raise Interrupted

    first_half, training = started(tmp_path / "parts", lambda group: group % 3 > 0, lambda group: False, 12)
    first_half._leave_if_asked = stop  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        asyncio.run(first_half._train(training))
    first_half.journal.close()
    (state,) = states
    plain = RunState.of(json.loads(json.dumps(state.plain(), allow_nan=False)), "x")
    second = trained(tmp_path / "parts", lambda group: group % 3 > 0, lambda group: False, 12, state=plain)
    batches = training.parts.learner.batches[:5] + second.parts.learner.batches
    assert sorted(group for batch in batches for group in batch) == sorted(
        group for batch in run.parts.learner.batches for group in batch
    )
    assert second.ledger.counts()["trained"] == 24
    assert second.ledger.rejections().keys() == run.ledger.rejections().keys()
    # Those that were ready are not drawn again.
    drawn_again = set(map(int, plain.ready)) & set(second.parts.pipeline.rollout_pool.drawn)
    assert not drawn_again


def test_the_model_is_exported_before_anything_else_can_fail(tmp_path: Path) -> None:
    run, training = started(tmp_path, lambda group: True, lambda group: False, 2)

    async def fails() -> None:
        if training.admission.step == 2:
            raise RunFailed("an engine died as the run ended")

    training.parts.pipeline.rollout_pool.settled = fails  # type: ignore[method-assign]
    with pytest.raises(RunFailed, match="as the run ended"):
        asyncio.run(run._train(training))
    assert training.parts.learner.exported == tmp_path / "model"


def test_a_run_without_progress_says_where_its_groups_are(tmp_path: Path) -> None:
    run, training = started(tmp_path, lambda group: True, lambda group: False, 2, overrides=("limits.stall_s=0.05",))

    async def hang(*_: Any) -> Any:
        await asyncio.sleep(60)

    training.parts.pipeline.rollout_pool.generate = hang  # type: ignore[method-assign]
    states = r"^no group ended within 0.05 s \(limits.stall_s\); the groups are 4 generating\n"
    with pytest.raises(RunFailed, match=states + "  learner: waits for groups"):
        asyncio.run(run._train(training))


def test_the_loss_of_the_learner_in_a_step_keeps_no_frames(tmp_path: Path) -> None:
    run, training = started(tmp_path, lambda group: True, lambda group: False, 5)

    async def die(groups: list[ReadyGroup], step: int, store: Any) -> dict[str, float]:
        assert FakeLease.unreleased >= GROUPS_PER_STEP
        raise ActorLost("learner rank 1 died while taking an optimizer step")

    training.parts.learner.train = die  # type: ignore[method-assign]
    FakeLease.unreleased = 0
    with pytest.raises(ActorLost):
        asyncio.run(run._train(training))
    assert FakeLease.unreleased == 0
